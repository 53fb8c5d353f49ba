# The environment staging: small, one NAT gateway, no standbys, and everything goes with `terraform destroy`.

module "platform" {
  source = "../../modules/platform"

  name                 = "fairlead-staging"
  access_entries       = var.access_entries
  availability_zones   = var.availability_zones
  host_domain          = var.host_domain
  private_access_cidrs = var.private_access_cidrs
  public_access_cidrs  = var.public_access_cidrs
  repositories         = var.repositories
  workloads            = var.workloads
  tags                 = local.tags

  cidr               = "10.20.0.0/16"
  log_retention_days = 30
  operator_replicas  = 1
  protected          = false
  single_nat_gateway = true

  ledger_database = {
    instance_class    = "db.t4g.medium"
    multi_az          = false
    allocated_gib     = 20
    max_allocated_gib = 100
    backup_days       = 3
  }

  node_groups = {
    general = { instance_types = ["m7i.large"], min_size = 2, max_size = 4 }
  }

  online_store = {
    node_type = "cache.t4g.small"
    replicas  = 0
  }
}
