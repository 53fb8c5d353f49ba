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

variable "access_entries" {
  description = "Who may use the Kubernetes API; one ClusterAdmin at least. As in the module cluster."
  type = map(object({
    principal_arn     = string
    policy            = string
    namespaces        = optional(set(string), [])
    kubernetes_groups = optional(set(string), [])
  }))
}

variable "availability_zones" {
  description = "Three availability zones of the region."
  type        = list(string)
}

variable "cidr" {
  description = "IPv4 range of the VPC, /16 to /20."
  type        = string
}

variable "host_domain" {
  description = "Domain of hosts of ModelDeployments that name none."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", var.host_domain))
    error_message = "host_domain must be a domain's name, as models.example.com."
  }
}

variable "kubernetes_version" {
  description = "Kubernetes release, as 1.34."
  type        = string
  default     = "1.34"
}

variable "ledger_database" {
  description = "Size of the ledger's database; storage in GiB, backups in days."
  type = object({
    instance_class    = string
    multi_az          = bool
    allocated_gib     = optional(number, 50)
    max_allocated_gib = optional(number, 500)
    backup_days       = optional(number, 14)
  })
}

variable "log_retention_days" {
  description = "How long flow logs and the control plane's logs are kept, in days, as CloudWatch allows."
  type        = number
  default     = 90
}

variable "node_groups" {
  description = "Managed node groups by name. As in the module cluster."
  type = map(object({
    instance_types = list(string)
    min_size       = number
    max_size       = number
    ami_type       = optional(string, "AL2023_x86_64_STANDARD")
    capacity_type  = optional(string, "ON_DEMAND")
    disk_size_gib  = optional(number, 50)
    labels         = optional(map(string), {})
    taints = optional(list(object({
      key    = string
      value  = optional(string)
      effect = string
    })), [])
  }))
}

variable "online_store" {
  description = "Size of the online store. As in the module online_store."
  type = object({
    node_type      = string
    replicas       = number
    cluster_mode   = optional(bool, false)
    shards         = optional(number, 1)
    engine         = optional(string, "valkey")
    engine_version = optional(string, "8.0")
  })
}

variable "operator_replicas" {
  description = "How many operators run; one writes, the others wait to take over."
  type        = number

  validation {
    condition     = var.operator_replicas >= 1
    error_message = "operator_replicas must be 1 or more."
  }
}

variable "private_access_cidrs" {
  description = "IPv4 ranges outside the VPC that may reach the private API endpoint."
  type        = set(string)
  default     = []
}

variable "protected" {
  description = "Whether data survives `terraform destroy`: the database refuses, full buckets and registries stay, keys can be taken back for 30 days instead of 7."
  type        = bool
  default     = true
}

variable "public_access_cidrs" {
  description = "IPv4 ranges that may reach a public API endpoint; there is none if empty."
  type        = set(string)
  default     = []
}

variable "repositories" {
  description = "Images of Fairlead and of what you build."
  type        = set(string)
  default     = ["operator", "server"]
}

variable "single_nat_gateway" {
  description = "One NAT gateway for all zones."
  type        = bool
}

variable "workloads" {
  description = "Who does what on AWS. As in the module workload_identity."
  type = map(object({
    kind            = string
    namespace       = string
    service_account = string
    folder          = string
  }))
  default = {}
}
