mock_provider "aws" {
  source = "../../testing"
}

variables {
  name                      = "fairlead-test"
  vpc_id                    = "vpc-1"
  subnet_ids                = ["subnet-a", "subnet-b", "subnet-c"]
  client_security_group_ids = { cluster = "sg-cluster" }
  tags                      = { Owner = "forecasting" }
}

run "the_database_is_private_encrypted_and_kept" {
  assert {
    condition     = !aws_db_instance.this.publicly_accessible
    error_message = "The database must not be public."
  }

  assert {
    condition     = aws_db_instance.this.storage_encrypted && aws_db_instance.this.kms_key_id == aws_kms_key.this.arn && aws_db_instance.this.performance_insights_kms_key_id == aws_kms_key.this.arn && aws_kms_key.this.enable_key_rotation
    error_message = "What is stored must be encrypted by the installation's key, which rotates."
  }

  assert {
    condition     = aws_db_instance.this.manage_master_user_password && aws_db_instance.this.password == null && aws_db_instance.this.master_user_secret_kms_key_id == aws_kms_key.this.arn
    error_message = "RDS must make and keep the password."
  }

  assert {
    condition     = { for parameter in aws_db_parameter_group.this.parameter : parameter.name => parameter.value } == { "rds.force_ssl" = "1" } && aws_db_instance.this.parameter_group_name == "fairlead-test-ledger-postgres17"
    error_message = "Connections must be TLS."
  }

  assert {
    condition     = aws_db_instance.this.deletion_protection && !aws_db_instance.this.skip_final_snapshot && aws_db_instance.this.final_snapshot_identifier == "fairlead-test-ledger-final" && !aws_db_instance.this.delete_automated_backups
    error_message = "The database must not go by accident, nor without a snapshot."
  }

  assert {
    condition     = aws_db_instance.this.multi_az && aws_db_instance.this.backup_retention_period == 14
    error_message = "A standby must take over, and a fortnight can be restored."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.clients["cluster"].referenced_security_group_id == "sg-cluster" && aws_vpc_security_group_ingress_rule.clients["cluster"].from_port == 5432 && aws_vpc_security_group_ingress_rule.clients["cluster"].to_port == 5432 && length(aws_vpc_security_group_ingress_rule.clients) == 1
    error_message = "Only the named clients may connect, to the database's port alone."
  }

  assert {
    condition     = output.master_user_secret_arn == "arn:aws:secretsmanager:eu-central-1:111122223333:secret:rds-mocked"
    error_message = "Where the password is must be told."
  }

  assert {
    condition = alltrue([
      for tags in [
        aws_kms_key.this.tags, aws_security_group.this.tags, aws_db_subnet_group.this.tags, aws_db_parameter_group.this.tags,
        aws_db_instance.this.tags,
      ] : tags.Owner == "forecasting" && startswith(tags.Name, "fairlead-test")
    ])
    error_message = "Every resource must have the given tags and a name."
  }
}

run "wrong_values_are_refused" {
  command = plan

  variables {
    allocated_gib             = 10
    backup_days               = 0
    client_security_group_ids = {}
    deletion_window_days      = 31
    engine_version            = "9"
    instance_class            = "m7g.large"
    name                      = "-ledger"
    subnet_ids                = []
  }

  expect_failures = [
    var.allocated_gib, var.backup_days, var.client_security_group_ids, var.deletion_window_days, var.engine_version,
    var.instance_class, var.name, var.subnet_ids,
  ]
}

run "storage_that_cannot_grow_is_refused" {
  command = plan

  variables {
    allocated_gib     = 100
    max_allocated_gib = 100
  }

  expect_failures = [var.max_allocated_gib]
}
