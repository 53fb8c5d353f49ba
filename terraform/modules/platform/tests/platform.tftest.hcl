mock_provider "aws" {
  source = "../../testing"
}

variables {
  name               = "fairlead-test"
  availability_zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  cidr               = "10.40.0.0/16"
  host_domain        = "models.example.com"
  operator_replicas  = 2
  single_nat_gateway = true
  tags               = { Owner = "forecasting" }
  access_entries     = { admin = { principal_arn = "arn:aws:iam::111122223333:role/admin", policy = "ClusterAdmin" } }
  ledger_database    = { instance_class = "db.t4g.medium", multi_az = false }
  node_groups        = { general = { instance_types = ["m7i.large"], min_size = 2, max_size = 4 } }
  online_store       = { node_type = "cache.t4g.small", replicas = 1 }
  workloads          = { serve = { kind = "model_server", namespace = "flights", service_account = "models", folder = "flights" } }
}

run "parts_are_wired" {
  assert {
    condition     = yamldecode(output.helm_values).image.registry == "111122223333.dkr.ecr.eu-central-1.amazonaws.com/fairlead-test"
    error_message = "The chart's images must come from the installation's registries."
  }

  assert {
    condition     = yamldecode(output.helm_values).networkPolicy.apiServer == { to = [{ ipBlock = { cidr = "172.20.0.0/16" } }, { ipBlock = { cidr = "10.40.0.0/16" } }], ports = [443] }
    error_message = "The operator must reach the API server by its Service and in the private subnets."
  }

  assert {
    condition     = yamldecode(output.helm_values).operator == { replicas = 2, settings = { hostDomain = "models.example.com" } } && !yamldecode(output.helm_values).redis.enabled
    error_message = "The operator must be as described, and the bundled Redis off."
  }

  assert {
    condition = yamldecode(output.feature_store_yaml).online_store == {
      type              = "redis"
      redis_type        = "redis"
      connection_string = "master.mocked.cache.amazonaws.com:6379,ssl=true,password=\"$${REDIS_PASSWORD}\""
    }
    error_message = "Feast must be told the installation's store."
  }

  assert {
    condition     = output.online_store_address == "master.mocked.cache.amazonaws.com:6379,ssl=true"
    error_message = "The online store's address must be told, with TLS."
  }

  assert {
    condition     = output.bucket_names.models == "fairlead-test-models-111122223333" && keys(output.role_arns) == ["serve"]
    error_message = "Buckets and roles must be told."
  }

  assert {
    condition     = output.ledger_database == { database = "ledger", host = "ledger.mocked.eu-central-1.rds.amazonaws.com", port = 5432, secret_arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:rds-mocked" }
    error_message = "The ledger's database must be told."
  }

  assert {
    condition     = length(output.nat_addresses) == 1
    error_message = "There must be one NAT gateway."
  }
}

run "wrong_values_are_refused" {
  command = plan

  variables {
    host_domain       = "localhost"
    name              = "F"
    operator_replicas = 0
  }

  expect_failures = [var.host_domain, var.name, var.operator_replicas]
}
