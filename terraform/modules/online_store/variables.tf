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

variable "client_security_group_ids" {
  description = "Security groups that may connect, by a name for each: the cluster's."
  type        = map(string)

  validation {
    condition     = length(var.client_security_group_ids) > 0
    error_message = "client_security_group_ids must name one at least: nothing else may connect."
  }
}

variable "cluster_mode" {
  description = "Whether keys are spread over shards. Changing it makes a new store."
  type        = bool
  default     = false
}

variable "deletion_window_days" {
  description = "How long a deleted KMS key or password can be taken back, in days."
  type        = number
  default     = 30

  validation {
    condition     = var.deletion_window_days >= 7 && var.deletion_window_days <= 30
    error_message = "deletion_window_days must be 7 to 30."
  }
}

variable "engine" {
  description = "valkey or redis; Feast speaks to both in the same way."
  type        = string
  default     = "valkey"

  validation {
    condition     = contains(["redis", "valkey"], var.engine)
    error_message = "engine must be valkey or redis."
  }
}

variable "engine_version" {
  description = "Major and minor version of the engine: 8.0 of valkey, 7.1 of redis."
  type        = string
  default     = "8.0"

  validation {
    condition     = can(regex(var.engine == "valkey" ? "^8\\.[0-9]+$" : "^7\\.[0-9]+$", var.engine_version))
    error_message = "engine_version must be 8.x of valkey or 7.x of redis."
  }
}

variable "node_type" {
  description = "ElastiCache node type; all features of all entities must fit into 75 % of its memory."
  type        = string
  default     = "cache.m7g.large"

  validation {
    condition     = startswith(var.node_type, "cache.")
    error_message = "node_type must be one of ElastiCache's, as cache.m7g.large."
  }
}

variable "replicas" {
  description = "Replicas of each shard. With none, a lost node is a lost store."
  type        = number
  default     = 1

  validation {
    condition     = var.replicas >= 0 && var.replicas <= 5
    error_message = "replicas must be 0 to 5."
  }
}

variable "shards" {
  description = "Shards in cluster mode."
  type        = number
  default     = 1

  validation {
    condition     = var.shards >= 1 && (var.cluster_mode || var.shards == 1)
    error_message = "shards must be 1 or more, and 1 without cluster_mode."
  }
}

variable "snapshot_days" {
  description = "How long daily snapshots are kept, in days. Features can be materialized anew, so few are enough."
  type        = number
  default     = 1

  validation {
    condition     = var.snapshot_days >= 0 && var.snapshot_days <= 35
    error_message = "snapshot_days must be 0 to 35."
  }
}

variable "subnet_ids" {
  description = "Private subnets of the nodes."
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
