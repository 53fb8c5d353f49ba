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

variable "allocated_gib" {
  description = "Storage at first, in GiB."
  type        = number
  default     = 50

  validation {
    condition     = var.allocated_gib >= 20
    error_message = "allocated_gib must be 20 or more."
  }
}

variable "backup_days" {
  description = "How far back the database can be restored to any moment, in days."
  type        = number
  default     = 14

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 35
    error_message = "backup_days must be 1 to 35."
  }
}

variable "client_security_group_ids" {
  description = "Security groups that may connect, by a name for each: the cluster's."
  type        = map(string)

  validation {
    condition     = length(var.client_security_group_ids) > 0
    error_message = "client_security_group_ids must name one at least: nothing else may connect."
  }
}

variable "deletion_protection" {
  description = "Whether the database refuses to be deleted."
  type        = bool
  default     = true
}

variable "deletion_window_days" {
  description = "How long a deleted KMS key can be taken back, in days."
  type        = number
  default     = 30

  validation {
    condition     = var.deletion_window_days >= 7 && var.deletion_window_days <= 30
    error_message = "deletion_window_days must be 7 to 30."
  }
}

variable "engine_version" {
  description = "Major version of PostgreSQL."
  type        = string
  default     = "17"

  validation {
    condition     = contains(["15", "16", "17"], var.engine_version)
    error_message = "engine_version must be 15, 16 or 17."
  }
}

variable "instance_class" {
  description = "RDS instance class."
  type        = string
  default     = "db.m7g.large"

  validation {
    condition     = startswith(var.instance_class, "db.")
    error_message = "instance_class must be one of RDS's, as db.m7g.large."
  }
}

variable "max_allocated_gib" {
  description = "How far storage grows by itself, in GiB."
  type        = number
  default     = 500

  validation {
    condition     = var.max_allocated_gib > var.allocated_gib
    error_message = "max_allocated_gib must be more than allocated_gib."
  }
}

variable "multi_az" {
  description = "Whether a standby in another zone takes over."
  type        = bool
  default     = true
}

variable "subnet_ids" {
  description = "Private subnets, in two zones at least."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "subnet_ids must be two at least, in different zones."
  }
}

variable "vpc_id" {
  description = "The VPC of the subnets."
  type        = string
}
