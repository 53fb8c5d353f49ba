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
  description = "Who may use the Kubernetes API: an IAM principal, an EKS access policy (View, Edit, Admin or ClusterAdmin), the namespaces it holds in (all if empty), and groups of RBAC: the policies View, Edit and Admin know no ModelDeployments, the roles that groups are bound to do."
  type = map(object({
    principal_arn     = string
    policy            = string
    namespaces        = optional(set(string), [])
    kubernetes_groups = optional(set(string), [])
  }))

  validation {
    condition     = alltrue([for entry in var.access_entries : contains(["View", "Edit", "Admin", "ClusterAdmin"], entry.policy)])
    error_message = "access_entries: policy must be View, Edit, Admin or ClusterAdmin."
  }

  validation {
    condition     = anytrue([for entry in var.access_entries : entry.policy == "ClusterAdmin"])
    error_message = "access_entries must have a ClusterAdmin: who makes the cluster is none by itself."
  }

  validation {
    condition     = alltrue([for entry in var.access_entries : entry.policy != "ClusterAdmin" || length(entry.namespaces) == 0])
    error_message = "access_entries: a ClusterAdmin holds in all namespaces."
  }

  validation {
    condition     = alltrue(flatten([for entry in var.access_entries : [for group in entry.kubernetes_groups : can(regex("^[^:]+(:[^:]+)*$", group)) && !can(regex("^(system|eks|aws|amazon|iam):", group))]]))
    error_message = "access_entries: EKS refuses groups that start with system:, eks:, aws:, amazon: or iam:."
  }
}

variable "addon_versions" {
  description = "Versions of add-ons by name; EKS's default for the Kubernetes version where none is given."
  type        = map(string)
  default     = {}

  validation {
    condition = length(setsubtract(keys(var.addon_versions), [
      "coredns", "eks-pod-identity-agent", "kube-proxy", "metrics-server", "vpc-cni"
    ])) == 0
    error_message = "addon_versions: the add-ons are coredns, eks-pod-identity-agent, kube-proxy, metrics-server and vpc-cni."
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

variable "kubernetes_version" {
  description = "Kubernetes release, as 1.34."
  type        = string
  default     = "1.34"

  validation {
    condition     = can(regex("^1\\.(3[2-9]|4[0-9])$", var.kubernetes_version))
    error_message = "kubernetes_version must be 1.32 or later, as 1.34."
  }
}

variable "log_retention_days" {
  description = "How long the control plane's logs are kept, in days, as CloudWatch allows."
  type        = number
  default     = 90

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827], var.log_retention_days)
    error_message = "log_retention_days must be one of CloudWatch's, as 30, 90 or 365."
  }
}

variable "node_groups" {
  description = "Managed node groups by name; sizes in nodes, disks in GiB."
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

  validation {
    condition     = length(var.node_groups) > 0
    error_message = "node_groups must have one at least."
  }

  validation {
    condition     = alltrue([for group in var.node_groups : group.min_size >= 1 && group.min_size <= group.max_size])
    error_message = "node_groups: 1 <= min_size <= max_size must hold."
  }

  validation {
    condition     = alltrue([for group in var.node_groups : contains(["ON_DEMAND", "SPOT"], group.capacity_type)])
    error_message = "node_groups: capacity_type must be ON_DEMAND or SPOT."
  }
}

variable "private_access_cidrs" {
  description = "IPv4 ranges outside the VPC (a VPN, a peered network) that may reach the private endpoint."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.private_access_cidrs : can(cidrnetmask(cidr)) && !endswith(cidr, "/0")])
    error_message = "private_access_cidrs must be IPv4 ranges, and not everywhere."
  }
}

variable "public_access_cidrs" {
  description = "IPv4 ranges that may reach a public endpoint; there is none if empty."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.public_access_cidrs : can(cidrnetmask(cidr)) && !endswith(cidr, "/0")])
    error_message = "public_access_cidrs must be IPv4 ranges, and not everywhere."
  }
}

variable "service_cidr" {
  description = "IPv4 range of Services; apart from the VPC's and all that is routed to it."
  type        = string
  default     = "172.20.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.service_cidr)) && can(regex("/(1[2-9]|2[0-4])$", var.service_cidr))
    error_message = "service_cidr must be an IPv4 range of /12 to /24, as 172.20.0.0/16."
  }
}

variable "subnet_ids" {
  description = "Private subnets of control plane and nodes, in two zones at least."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "subnet_ids must be two at least: EKS wants two zones."
  }
}
