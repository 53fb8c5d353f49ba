locals {
  tags = {
    Environment = "production"
    ManagedBy   = "terraform"
    Owner       = var.owner
    Project     = "fairlead"
  }
}

provider "aws" {
  region = var.region
}
