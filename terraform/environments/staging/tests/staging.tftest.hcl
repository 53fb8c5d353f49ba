mock_provider "aws" {
  source = "../../testing"
}

variables {
  region             = "eu-central-1"
  availability_zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  host_domain        = "models.example.com"
  owner              = "forecasting"
  repositories       = ["operator", "server", "flights"]
  access_entries = {
    admin   = { principal_arn = "arn:aws:iam::111122223333:role/admin", policy = "ClusterAdmin" }
    flights = { principal_arn = "arn:aws:iam::111122223333:role/flights", policy = "Edit", namespaces = ["flights"], kubernetes_groups = ["flights"] }
  }
  workloads = { serve = { kind = "model_server", namespace = "flights", service_account = "models", folder = "flights" } }
}

run "the_environment_is_as_described" {
  assert {
    condition     = output.registry == "111122223333.dkr.ecr.eu-central-1.amazonaws.com/fairlead-staging" && output.bucket_names.models == "fairlead-staging-models-111122223333"
    error_message = "Everything must be named by the environment."
  }

  assert {
    condition     = local.tags == { Environment = "staging", ManagedBy = "terraform", Owner = "forecasting", Project = "fairlead" }
    error_message = "Everything must say whose it is."
  }

  assert {
    condition     = length(output.nat_addresses) == 1 && yamldecode(output.helm_values).operator.replicas == 1
    error_message = "Staging must be small."
  }

  assert {
    condition     = yamldecode(output.feature_store_yaml).online_store.redis_type == "redis"
    error_message = "The online store must have one shard."
  }
}

run "wrong_values_are_refused" {
  command = plan

  variables {
    owner  = ""
    region = "Frankfurt"
  }

  expect_failures = [var.owner, var.region]
}
