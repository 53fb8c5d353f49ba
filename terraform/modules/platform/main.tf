# Everything that Fairlead runs on, wired: network, cluster, buckets, registries, online store, the ledger's database, and
# the rights of workloads. The environments differ in sizes alone.

locals {
  deletion_window_days = var.protected ? 30 : 7
  clients              = { cluster = module.cluster.security_group_id }

  helm_values = {
    image = { registry = module.registries.registry }
    operator = {
      replicas = var.operator_replicas
      settings = { hostDomain = var.host_domain }
    }
    server = { image = { repository = "server" } }
    networkPolicy = {
      enabled = true
      # EKS looks at a packet before it is sent on from the Service's address to an interface in the private subnets.
      apiServer = {
        to    = [for cidr in [module.cluster.service_cidr, module.network.cidr] : { ipBlock = { cidr = cidr } }]
        ports = [443]
      }
    }
    redis = { enabled = false }
  }
}

module "network" {
  source = "../network"

  name                    = var.name
  availability_zones      = var.availability_zones
  cidr                    = var.cidr
  flow_log_retention_days = var.log_retention_days
  single_nat_gateway      = var.single_nat_gateway
  tags                    = var.tags
}

module "cluster" {
  source = "../cluster"

  name                 = var.name
  access_entries       = var.access_entries
  deletion_window_days = local.deletion_window_days
  kubernetes_version   = var.kubernetes_version
  log_retention_days   = var.log_retention_days
  node_groups          = var.node_groups
  private_access_cidrs = var.private_access_cidrs
  public_access_cidrs  = var.public_access_cidrs
  subnet_ids           = module.network.private_subnet_ids
  tags                 = var.tags
}

module "storage" {
  source = "../storage"

  name                 = var.name
  deletion_window_days = local.deletion_window_days
  force_destroy        = !var.protected
  tags                 = var.tags
}

module "registries" {
  source = "../registries"

  name         = var.name
  force_delete = !var.protected
  repositories = var.repositories
  tags         = var.tags
}

module "online_store" {
  source = "../online_store"

  name                      = var.name
  client_security_group_ids = local.clients
  cluster_mode              = var.online_store.cluster_mode
  deletion_window_days      = local.deletion_window_days
  engine                    = var.online_store.engine
  engine_version            = var.online_store.engine_version
  node_type                 = var.online_store.node_type
  replicas                  = var.online_store.replicas
  shards                    = var.online_store.shards
  subnet_ids                = module.network.private_subnet_ids
  tags                      = var.tags
  vpc_id                    = module.network.vpc_id
}

module "ledger_database" {
  source = "../ledger_database"

  name                      = var.name
  allocated_gib             = var.ledger_database.allocated_gib
  backup_days               = var.ledger_database.backup_days
  client_security_group_ids = local.clients
  deletion_protection       = var.protected
  deletion_window_days      = local.deletion_window_days
  instance_class            = var.ledger_database.instance_class
  max_allocated_gib         = var.ledger_database.max_allocated_gib
  multi_az                  = var.ledger_database.multi_az
  subnet_ids                = module.network.private_subnet_ids
  tags                      = var.tags
  vpc_id                    = module.network.vpc_id
}

module "workload_identity" {
  source = "../workload_identity"

  name         = var.name
  bucket_arns  = module.storage.bucket_arns
  cluster_arn  = module.cluster.arn
  cluster_name = module.cluster.name
  kms_key_arn  = module.storage.kms_key_arn
  tags         = var.tags
  workloads    = var.workloads
}
