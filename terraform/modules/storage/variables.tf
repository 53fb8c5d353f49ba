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

variable "backup_days" {
  description = "How long a backup is kept, in days."
  type        = number
  default     = 365

  validation {
    condition     = var.backup_days > 30
    error_message = "backup_days must be more than 30: backups move to colder storage after 30."
  }
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

variable "force_destroy" {
  description = "Whether `terraform destroy` deletes what is in the buckets."
  type        = bool
  default     = false
}

variable "noncurrent_days" {
  description = "How long an overwritten or deleted object can be taken back, in days."
  type        = number
  default     = 90

  validation {
    condition     = var.noncurrent_days >= 1
    error_message = "noncurrent_days must be 1 or more."
  }
}
