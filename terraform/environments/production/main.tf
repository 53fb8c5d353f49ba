# The environment production: three zones with standbys, a sharded online store, and data that survives `terraform destroy`.

module "platform" {
  source = "../../modules/platform"

  name                 = "fairlead-production"
  access_entries       = var.access_entries
  availability_zones   = var.availability_zones
  host_domain          = var.host_domain
  private_access_cidrs = var.private_access_cidrs
  public_access_cidrs  = var.public_access_cidrs
  repositories         = var.repositories
  workloads            = var.workloads
  tags                 = local.tags

  cidr               = "10.30.0.0/16"
  log_retention_days = 365
  operator_replicas  = 2
  protected          = true
  single_nat_gateway = false

  ledger_database = {
    instance_class = "db.m7g.large"
    multi_az       = true
    backup_days    = 30
  }

  node_groups = {
    general = { instance_types = ["m7i.large"], min_size = 3, max_size = 6 }
    models = {
      instance_types = ["c7i.xlarge"]
      min_size       = 3
      max_size       = 30
      labels         = { "fairlead.dev/models" = "true" }
    }
  }

  online_store = {
    node_type    = "cache.m7g.large"
    replicas     = 1
    cluster_mode = true
    shards       = 3
  }
}
