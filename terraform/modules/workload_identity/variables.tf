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

variable "bucket_arns" {
  description = "Buckets by purpose: backups, features, models."
  type = object({
    backups  = string
    features = string
    models   = string
  })
}

variable "cluster_arn" {
  description = "The cluster whose pods may take the roles."
  type        = string
}

variable "cluster_name" {
  description = "Name of the cluster."
  type        = string
}

variable "kms_key_arn" {
  description = "Key of everything in the buckets."
  type        = string
}

variable "workloads" {
  description = "Who does what, by a name for each: a kind (model_server, training, materialization, ledger_backup), the service account, and the folder in the kind's bucket that it is about."
  type = map(object({
    kind            = string
    namespace       = string
    service_account = string
    folder          = string
  }))
  default = {}

  validation {
    condition = alltrue([
      for workload in var.workloads : contains(["model_server", "training", "materialization", "ledger_backup"], workload.kind)
    ])
    error_message = "workloads: kind must be model_server, training, materialization or ledger_backup; the operator needs no role."
  }

  validation {
    condition     = alltrue([for workload in var.workloads : can(regex("^[a-zA-Z0-9][a-zA-Z0-9._-]*(/[a-zA-Z0-9._-]+)*$", workload.folder))])
    error_message = "workloads: folder must be a path without slashes around it and without wildcards, as flights or team/flights."
  }

  validation {
    condition     = alltrue([for name in keys(var.workloads) : can(regex("^[a-z][a-z0-9-]{0,31}$", name))])
    error_message = "workloads: names must be 1 to 32 of a-z, 0-9 and -."
  }

  validation {
    condition     = length(distinct([for workload in var.workloads : "${workload.namespace}/${workload.service_account}"])) == length(var.workloads)
    error_message = "workloads: a service account has one role, so it can be one workload only."
  }
}
