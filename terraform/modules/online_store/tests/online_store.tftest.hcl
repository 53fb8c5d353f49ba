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

run "the_store_is_encrypted_and_asks_for_a_password" {
  assert {
    condition     = aws_elasticache_replication_group.this.transit_encryption_enabled && aws_elasticache_replication_group.this.transit_encryption_mode == "required"
    error_message = "Connections must be TLS."
  }

  assert {
    condition     = tobool(aws_elasticache_replication_group.this.at_rest_encryption_enabled) && aws_elasticache_replication_group.this.kms_key_id == aws_kms_key.this.arn && aws_kms_key.this.enable_key_rotation
    error_message = "What is stored must be encrypted by the installation's key, which rotates."
  }

  assert {
    condition     = aws_elasticache_replication_group.this.auth_token == aws_secretsmanager_secret_version.auth_token.secret_string && length(aws_elasticache_replication_group.this.auth_token) == 64
    error_message = "The password must be the one in Secrets Manager."
  }

  assert {
    condition     = data.aws_secretsmanager_random_password.auth_token.exclude_punctuation && !data.aws_secretsmanager_random_password.auth_token.include_space
    error_message = "The password must not break Feast's connection string."
  }

  assert {
    condition     = aws_secretsmanager_secret.auth_token.kms_key_id == aws_kms_key.this.arn
    error_message = "The password must be encrypted by the installation's key."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.clients["cluster"].referenced_security_group_id == "sg-cluster" && aws_vpc_security_group_ingress_rule.clients["cluster"].from_port == 6379 && aws_vpc_security_group_ingress_rule.clients["cluster"].to_port == 6379 && length(aws_vpc_security_group_ingress_rule.clients) == 1
    error_message = "Only the named clients may connect, to the store's port alone."
  }

  assert {
    condition     = aws_elasticache_replication_group.this.automatic_failover_enabled && aws_elasticache_replication_group.this.multi_az_enabled && aws_elasticache_replication_group.this.num_cache_clusters == 2
    error_message = "A replica in another zone must take over."
  }

  assert {
    condition     = { for parameter in aws_elasticache_parameter_group.this.parameter : parameter.name => parameter.value } == { cluster-enabled = "no", maxmemory-policy = "noeviction" } && aws_elasticache_parameter_group.this.family == "valkey8"
    error_message = "A full store must refuse writes rather than forget features."
  }

  assert {
    condition = output.feast_online_store == {
      type              = "redis"
      redis_type        = "redis"
      connection_string = "master.mocked.cache.amazonaws.com:6379,ssl=true,password=\"$${REDIS_PASSWORD}\""
    }
    error_message = "Feast must be told the primary, TLS, and where the password comes from, never the password."
  }

  assert {
    condition = alltrue([
      for tags in [
        aws_kms_key.this.tags, aws_secretsmanager_secret.auth_token.tags, aws_security_group.this.tags,
        aws_elasticache_subnet_group.this.tags, aws_elasticache_parameter_group.this.tags, aws_elasticache_replication_group.this.tags,
      ] : tags.Owner == "forecasting" && startswith(tags.Name, "fairlead-test")
    ])
    error_message = "Every resource must have the given tags and a name."
  }
}

run "shards_in_cluster_mode" {
  state_key = "cluster_mode"

  variables {
    cluster_mode   = true
    shards         = 3
    replicas       = 2
    engine         = "redis"
    engine_version = "7.1"
  }

  assert {
    condition     = aws_elasticache_replication_group.this.num_node_groups == 3 && aws_elasticache_replication_group.this.replicas_per_node_group == 2
    error_message = "There must be as many shards and replicas as was said."
  }

  assert {
    condition     = contains([for parameter in aws_elasticache_parameter_group.this.parameter : "${parameter.name}=${parameter.value}"], "cluster-enabled=yes") && aws_elasticache_parameter_group.this.family == "redis7"
    error_message = "The engine must run in cluster mode."
  }

  assert {
    condition     = output.feast_online_store.redis_type == "redis_cluster" && startswith(output.feast_online_store.connection_string, "clustercfg.mocked.cache.amazonaws.com:6379,")
    error_message = "Feast must be told that the store is a cluster, by its configuration endpoint."
  }
}

run "wrong_values_are_refused" {
  command = plan

  variables {
    client_security_group_ids = {}
    deletion_window_days      = 3
    engine                    = "memcached"
    name                      = "a--much-too-long-name-for-elasticache"
    node_type                 = "m7g.large"
    replicas                  = 6
    shards                    = 2
    snapshot_days             = 36
    subnet_ids                = ["subnet-a"]
  }

  expect_failures = [
    var.client_security_group_ids, var.deletion_window_days, var.engine, var.name, var.node_type,
    var.replicas, var.shards, var.snapshot_days, var.subnet_ids,
  ]
}

run "another_engines_version_is_refused" {
  command = plan

  variables {
    engine_version = "7.1"
  }

  expect_failures = [var.engine_version]
}
