# Database of the ledger: RDS for PostgreSQL, encrypted, TLS only, not public. RDS makes the password and rotates it; it
# is in Secrets Manager and never in Terraform's state.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  port      = 5432
}

resource "aws_kms_key" "this" {
  description             = "${var.name}: the ledger's database and its password"
  enable_key_rotation     = true
  deletion_window_in_days = var.deletion_window_days
  tags                    = merge(var.tags, { Name = "${var.name}-ledger" })

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
  name          = "alias/${var.name}-ledger"
  target_key_id = aws_kms_key.this.key_id
}

resource "aws_security_group" "this" {
  name        = "${var.name}-ledger"
  description = "The ledger's database"
  vpc_id      = var.vpc_id
  tags        = merge(var.tags, { Name = "${var.name}-ledger" })
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = var.client_security_group_ids

  security_group_id            = aws_security_group.this.id
  description                  = "PostgreSQL from ${each.key}"
  referenced_security_group_id = each.value
  from_port                    = local.port
  to_port                      = local.port
  ip_protocol                  = "tcp"
  tags                         = merge(var.tags, { Name = "${var.name}-ledger" })
}

resource "aws_db_subnet_group" "this" {
  name       = "${var.name}-ledger"
  subnet_ids = var.subnet_ids
  tags       = merge(var.tags, { Name = "${var.name}-ledger" })
}

resource "aws_db_parameter_group" "this" {
  name        = "${var.name}-ledger-postgres${var.engine_version}"
  description = "TLS only"
  family      = "postgres${var.engine_version}"
  tags        = merge(var.tags, { Name = "${var.name}-ledger" })

  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_db_instance" "this" {
  identifier                          = "${var.name}-ledger"
  engine                              = "postgres"
  engine_version                      = var.engine_version
  instance_class                      = var.instance_class
  db_name                             = "ledger"
  username                            = "ledger_admin"
  manage_master_user_password         = true
  master_user_secret_kms_key_id       = aws_kms_key.this.arn
  iam_database_authentication_enabled = true
  port                                = local.port
  multi_az                            = var.multi_az
  publicly_accessible                 = false
  db_subnet_group_name                = aws_db_subnet_group.this.name
  vpc_security_group_ids              = [aws_security_group.this.id]
  parameter_group_name                = aws_db_parameter_group.this.name
  allocated_storage                   = var.allocated_gib
  max_allocated_storage               = var.max_allocated_gib
  storage_type                        = "gp3"
  storage_encrypted                   = true
  kms_key_id                          = aws_kms_key.this.arn
  backup_retention_period             = var.backup_days
  copy_tags_to_snapshot               = true
  delete_automated_backups            = false
  deletion_protection                 = var.deletion_protection
  skip_final_snapshot                 = false
  final_snapshot_identifier           = "${var.name}-ledger-final"
  enabled_cloudwatch_logs_exports     = ["postgresql", "upgrade"]
  performance_insights_enabled        = true
  performance_insights_kms_key_id     = aws_kms_key.this.arn
  auto_minor_version_upgrade          = true
  apply_immediately                   = false
  tags                                = merge(var.tags, { Name = "${var.name}-ledger" })
}
