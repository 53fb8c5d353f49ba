mock_provider "aws" {
  source = "../../testing"
}

variables {
  name = "fairlead-test"
  tags = { Owner = "forecasting" }
}

run "buckets_are_closed_encrypted_and_versioned" {
  assert {
    condition     = values(output.bucket_names) == ["fairlead-test-backups-111122223333", "fairlead-test-features-111122223333", "fairlead-test-models-111122223333"]
    error_message = "There must be a bucket for each purpose, named by installation and account."
  }

  assert {
    condition     = output.bucket_arns.models == "arn:aws:s3:::fairlead-test-models-111122223333"
    error_message = "ARNs must be the buckets'."
  }

  assert {
    condition     = keys(aws_s3_bucket_public_access_block.this) == keys(aws_s3_bucket.this) && alltrue(flatten([for block in aws_s3_bucket_public_access_block.this : [block.block_public_acls, block.block_public_policy, block.ignore_public_acls, block.restrict_public_buckets]]))
    error_message = "Public access must be blocked in all four ways, everywhere."
  }

  assert {
    condition     = length(aws_s3_bucket_versioning.this) == 3 && alltrue([for versioning in aws_s3_bucket_versioning.this : versioning.versioning_configuration[0].status == "Enabled"])
    error_message = "Every bucket must keep versions."
  }

  assert {
    condition = length(aws_s3_bucket_server_side_encryption_configuration.this) == 3 && alltrue([
      for encryption in aws_s3_bucket_server_side_encryption_configuration.this :
      one(one(encryption.rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms" && one(one(encryption.rule).apply_server_side_encryption_by_default).kms_master_key_id == aws_kms_key.this.arn
    ])
    error_message = "Every bucket must be encrypted by the installation's key."
  }

  assert {
    condition     = aws_kms_key.this.enable_key_rotation
    error_message = "The key must rotate."
  }

  assert {
    condition     = length(aws_s3_bucket_ownership_controls.this) == 3 && alltrue([for controls in aws_s3_bucket_ownership_controls.this : controls.rule[0].object_ownership == "BucketOwnerEnforced"])
    error_message = "Access lists must be off."
  }

  assert {
    condition = alltrue([
      for purpose, policy in aws_s3_bucket_policy.this : alltrue([
        for statement in jsondecode(policy.policy).Statement :
        statement.Effect == "Deny" && statement.Principal == "*" && statement.Resource == ["${local.arns[purpose]}", "${local.arns[purpose]}/*"]
      ])
    ])
    error_message = "Bucket policies must only deny, and hold for the bucket and all in it."
  }

  assert {
    condition = length(aws_s3_bucket_policy.this) == 3 && alltrue([
      for policy in aws_s3_bucket_policy.this : jsondecode(policy.policy).Statement[*].Condition == [
        { Bool = { "aws:SecureTransport" = "false" } }, { NumericLessThan = { "s3:TlsVersion" = "1.2" } }
      ]
    ])
    error_message = "What is not TLS 1.2 or later must be refused."
  }

  assert {
    condition     = alltrue([for lifecycle in aws_s3_bucket_lifecycle_configuration.this : lifecycle.rule[0].noncurrent_version_expiration[0].noncurrent_days == 90 && lifecycle.rule[0].abort_incomplete_multipart_upload[0].days_after_initiation == 7])
    error_message = "Leftovers must go."
  }

  assert {
    condition = { for purpose, lifecycle in aws_s3_bucket_lifecycle_configuration.this : purpose => length([
      for rule in lifecycle.rule : rule if length(rule.expiration) > 0
    ]) } == { backups = 1, features = 0, models = 0 }
    error_message = "Only backups may expire."
  }

  assert {
    condition     = !anytrue([for bucket in values(aws_s3_bucket.this) : bucket.force_destroy])
    error_message = "A bucket that is not empty must not be destroyed."
  }

  assert {
    condition     = alltrue([for tags in concat([aws_kms_key.this.tags], values(aws_s3_bucket.this)[*].tags) : tags.Owner == "forecasting" && startswith(tags.Name, "fairlead-test")])
    error_message = "Every resource must have the given tags and a name."
  }
}

run "wrong_values_are_refused" {
  command = plan

  variables {
    backup_days          = 30
    deletion_window_days = 3
    name                 = "a"
    noncurrent_days      = 0
  }

  expect_failures = [var.backup_days, var.deletion_window_days, var.name, var.noncurrent_days]
}
