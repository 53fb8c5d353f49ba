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

variable "force_delete" {
  description = "Whether `terraform destroy` deletes registries that hold images."
  type        = bool
  default     = false
}

variable "kept_images" {
  description = "How many tagged images a registry keeps. Models run their servers' releases for long: keep more than you roll back."
  type        = number
  default     = 200

  validation {
    condition     = var.kept_images >= 20
    error_message = "kept_images must be 20 or more: a running model's server must stay pullable."
  }
}

variable "kms_key_arn" {
  description = "Key of the images; AWS's own for ECR if null."
  type        = string
  default     = null
}

variable "repositories" {
  description = "Images of Fairlead and of what you build, below the installation's name."
  type        = set(string)
  default     = ["operator", "server"]

  validation {
    condition     = length(setsubtract(["operator", "server"], var.repositories)) == 0
    error_message = "repositories must hold operator and server."
  }
}
