locals {
  tags = {
    Environment = "staging"
    ManagedBy   = "terraform"
    Owner       = var.owner
    Project     = "fairlead"
  }
}

provider "aws" {
  region = var.region
}
