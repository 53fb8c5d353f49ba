variable "access_entries" {
  description = "Who may use the Kubernetes API: an IAM principal, an EKS access policy (View, Edit, Admin or ClusterAdmin), the namespaces it holds in (all if empty), and groups of RBAC: the policies View, Edit and Admin know no ModelDeployments, the roles that groups are bound to do. One ClusterAdmin at least."
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

variable "host_domain" {
  description = "Domain of hosts of ModelDeployments that name none."
  type        = string
}

variable "owner" {
  description = "Team that owns the installation: a tag of every resource."
  type        = string

  validation {
    condition     = length(var.owner) > 0
    error_message = "owner must not be empty."
  }
}

variable "private_access_cidrs" {
  description = "IPv4 ranges outside the VPC (a VPN, a peered network) that may reach the private API endpoint."
  type        = set(string)
  default     = []
}

variable "public_access_cidrs" {
  description = "IPv4 ranges that may reach a public API endpoint; there is none if empty."
  type        = set(string)
  default     = []
}

variable "region" {
  description = "AWS region."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region must be one of AWS's, as eu-central-1."
  }
}

variable "repositories" {
  description = "Images of Fairlead and of what you build: names of registries in ECR, below the installation's."
  type        = set(string)
  default     = ["operator", "server"]
}

variable "workloads" {
  description = "Who does what on AWS: a kind (model_server, training, materialization, ledger_backup), the service account, and the folder in the kind's bucket that it is about."
  type = map(object({
    kind            = string
    namespace       = string
    service_account = string
    folder          = string
  }))
  default = {}
}
