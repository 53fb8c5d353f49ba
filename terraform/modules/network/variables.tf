variable "name" {
  description = "Name of the installation; every resource's name starts with it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 20 of a-z, 0-9 and -, start with a letter and not end with -."
  }
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
  default     = {}
}

variable "availability_zones" {
  description = "Three availability zones of the region."
  type        = list(string)

  validation {
    condition     = length(var.availability_zones) == 3 && length(distinct(var.availability_zones)) == 3
    error_message = "availability_zones must be three different zones."
  }
}

variable "cidr" {
  description = "IPv4 range of the VPC, /16 to /20. Three eighths become private subnets, three 64ths public ones."
  type        = string
  default     = "10.20.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.cidr)) && can(regex("/(16|17|18|19|20)$", var.cidr))
    error_message = "cidr must be an IPv4 range of /16 to /20, as 10.20.0.0/16."
  }
}

variable "flow_log_retention_days" {
  description = "How long flow logs are kept, in days, as CloudWatch allows."
  type        = number
  default     = 90

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827], var.flow_log_retention_days)
    error_message = "flow_log_retention_days must be one of CloudWatch's, as 30, 90 or 365."
  }
}

variable "interface_endpoints" {
  description = "AWS services that are reached inside the VPC. eks-auth is how Pod Identity gets credentials."
  type        = set(string)
  default     = ["ecr.api", "ecr.dkr", "eks-auth", "logs", "secretsmanager", "sts"]

  validation {
    condition     = length(setsubtract(["ecr.api", "ecr.dkr", "eks-auth"], var.interface_endpoints)) == 0
    error_message = "interface_endpoints must hold ecr.api, ecr.dkr and eks-auth."
  }
}

variable "single_nat_gateway" {
  description = "One NAT gateway for all zones: cheaper, and without it no zone reaches the internet."
  type        = bool
  default     = false
}
