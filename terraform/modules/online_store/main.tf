# Online store of features: ElastiCache (Valkey or Redis), encrypted at rest and in transit, with a password in Secrets
# Manager. One primary with replicas, or shards of them in cluster mode. The password is in Terraform's state, too.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

# Feast reads the password out of a list with commas and equals signs, so it has letters and digits alone.
data "aws_secretsmanager_random_password" "auth_token" {
  password_length            = 64
  exclude_punctuation        = true
  include_space              = false
  require_each_included_type = true
}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  port      = 6379
  host      = var.cluster_mode ? aws_elasticache_replication_group.this.configuration_endpoint_address : aws_elasticache_replication_group.this.primary_endpoint_address
}

resource "aws_kms_key" "this" {
  description             = "${var.name}: the online store and its password"
  enable_key_rotation     = true
  deletion_window_in_days = var.deletion_window_days
  tags                    = merge(var.tags, { Name = "${var.name}-online" })

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "IamDecides"
      Effect    = "Allow"
      Action    = "kms:*"
      Resource  = "*"
      Principal = { AWS = "arn:${local.partition}:iam::${local.account}:root" }
    }]
  })
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.name}-online"
  target_key_id = aws_kms_key.this.key_id
}

resource "aws_secretsmanager_secret" "auth_token" {
  name                    = "${var.name}/online-store"
  description             = "Password of the online store"
  kms_key_id              = aws_kms_key.this.arn
  recovery_window_in_days = var.deletion_window_days
  tags                    = merge(var.tags, { Name = "${var.name}/online-store" })
}

resource "aws_secretsmanager_secret_version" "auth_token" {
  secret_id     = aws_secretsmanager_secret.auth_token.id
  secret_string = data.aws_secretsmanager_random_password.auth_token.random_password

  lifecycle {
    # The data source has another one each time; it changes when this is replaced.
    ignore_changes = [secret_string]
  }
}

resource "aws_security_group" "this" {
  name        = "${var.name}-online"
  description = "The online store"
  vpc_id      = var.vpc_id
  tags        = merge(var.tags, { Name = "${var.name}-online" })
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = var.client_security_group_ids

  security_group_id            = aws_security_group.this.id
  description                  = "Redis from ${each.key}"
  referenced_security_group_id = each.value
  from_port                    = local.port
  to_port                      = local.port
  ip_protocol                  = "tcp"
  tags                         = merge(var.tags, { Name = "${var.name}-online" })
}

resource "aws_elasticache_subnet_group" "this" {
  name       = "${var.name}-online"
  subnet_ids = var.subnet_ids
  tags       = merge(var.tags, { Name = "${var.name}-online" })
}

resource "aws_elasticache_parameter_group" "this" {
  name        = "${var.name}-online-${var.engine}${split(".", var.engine_version)[0]}"
  description = "A full store refuses writes rather than forget features"
  family      = "${var.engine}${split(".", var.engine_version)[0]}"
  tags        = merge(var.tags, { Name = "${var.name}-online" })

  parameter {
    name  = "cluster-enabled"
    value = var.cluster_mode ? "yes" : "no"
  }

  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_elasticache_replication_group" "this" {
  replication_group_id       = "${var.name}-online"
  description                = "Online features of ${var.name}"
  engine                     = var.engine
  engine_version             = var.engine_version
  node_type                  = var.node_type
  port                       = local.port
  parameter_group_name       = aws_elasticache_parameter_group.this.name
  subnet_group_name          = aws_elasticache_subnet_group.this.name
  security_group_ids         = [aws_security_group.this.id]
  num_cache_clusters         = var.cluster_mode ? null : var.replicas + 1
  num_node_groups            = var.cluster_mode ? var.shards : null
  replicas_per_node_group    = var.cluster_mode ? var.replicas : null
  automatic_failover_enabled = var.cluster_mode || var.replicas > 0
  multi_az_enabled           = var.replicas > 0
  at_rest_encryption_enabled = true
  kms_key_id                 = aws_kms_key.this.arn
  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  auth_token                 = aws_secretsmanager_secret_version.auth_token.secret_string
  auth_token_update_strategy = "ROTATE"
  snapshot_retention_limit   = var.snapshot_days
  auto_minor_version_upgrade = true
  apply_immediately          = false
  tags                       = merge(var.tags, { Name = "${var.name}-online" })
}
