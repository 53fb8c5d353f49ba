mock_provider "aws" {
  source = "../../testing"
}

variables {
  name         = "fairlead-test"
  cluster_arn  = "arn:aws:eks:eu-central-1:111122223333:cluster/fairlead-test"
  cluster_name = "fairlead-test"
  kms_key_arn  = "arn:aws:kms:eu-central-1:111122223333:key/storage"
  tags         = { Owner = "forecasting" }
  bucket_arns = {
    backups  = "arn:aws:s3:::backups"
    features = "arn:aws:s3:::features"
    models   = "arn:aws:s3:::models"
  }
  workloads = {
    backup      = { kind = "ledger_backup", namespace = "fairlead-system", service_account = "backup", folder = "ledger" }
    materialize = { kind = "materialization", namespace = "flights", service_account = "materialize", folder = "flights" }
    serve       = { kind = "model_server", namespace = "flights", service_account = "models", folder = "flights" }
    train       = { kind = "training", namespace = "flights", service_account = "training", folder = "flights" }
  }
}

run "each_workload_may_do_its_work_and_nothing_else" {
  assert {
    condition = jsondecode(aws_iam_role_policy.this["serve"].policy).Statement == [
      { Sid = "ReadModels", Effect = "Allow", Action = ["s3:GetObject"], Resource = ["arn:aws:s3:::models/flights/*"] },
      { Sid = "ListModels", Effect = "Allow", Action = ["s3:ListBucket"], Resource = ["arn:aws:s3:::models"], Condition = { StringLike = { "s3:prefix" = ["flights/*"] } } },
      { Sid = "UseKey", Effect = "Allow", Action = ["kms:Decrypt"], Resource = ["arn:aws:kms:eu-central-1:111122223333:key/storage"] },
    ]
    error_message = "A model server may read its folder of models."
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.this["train"].policy).Statement == [
      { Sid = "ReadModelsAndFeatures", Effect = "Allow", Action = ["s3:GetObject"], Resource = ["arn:aws:s3:::features/flights/*", "arn:aws:s3:::models/flights/*"] },
      { Sid = "WriteModels", Effect = "Allow", Action = ["s3:AbortMultipartUpload", "s3:PutObject"], Resource = ["arn:aws:s3:::models/flights/*"] },
      { Sid = "ListFeatures", Effect = "Allow", Action = ["s3:ListBucket"], Resource = ["arn:aws:s3:::features"], Condition = { StringLike = { "s3:prefix" = ["flights/*"] } } },
      { Sid = "ListModels", Effect = "Allow", Action = ["s3:ListBucket"], Resource = ["arn:aws:s3:::models"], Condition = { StringLike = { "s3:prefix" = ["flights/*"] } } },
      { Sid = "UseKey", Effect = "Allow", Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = ["arn:aws:kms:eu-central-1:111122223333:key/storage"] },
    ]
    error_message = "Training may read features and write models of its folder."
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.this["materialize"].policy).Statement == [
      { Sid = "ReadFeatures", Effect = "Allow", Action = ["s3:GetObject"], Resource = ["arn:aws:s3:::features/flights/*"] },
      { Sid = "WriteRegistry", Effect = "Allow", Action = ["s3:AbortMultipartUpload", "s3:PutObject"], Resource = ["arn:aws:s3:::features/flights/registry/*"] },
      { Sid = "ListFeatures", Effect = "Allow", Action = ["s3:ListBucket"], Resource = ["arn:aws:s3:::features"], Condition = { StringLike = { "s3:prefix" = ["flights/*"] } } },
      { Sid = "UseKey", Effect = "Allow", Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = ["arn:aws:kms:eu-central-1:111122223333:key/storage"] },
    ]
    error_message = "Materialization may read features and write the registry of its folder."
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.this["backup"].policy).Statement == [
      { Sid = "WriteBackups", Effect = "Allow", Action = ["s3:AbortMultipartUpload", "s3:PutObject"], Resource = ["arn:aws:s3:::backups/ledger/*"] },
      { Sid = "UseKey", Effect = "Allow", Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = ["arn:aws:kms:eu-central-1:111122223333:key/storage"] },
    ]
    error_message = "A backup may only be written."
  }

  assert {
    condition     = !anytrue(flatten([for policy in aws_iam_role_policy.this : [for statement in jsondecode(policy.policy).Statement : [for action in statement.Action : strcontains(action, "*") || strcontains(action, "Delete")]]]))
    error_message = "No action may be a wildcard, and none deletes."
  }

  assert {
    condition     = alltrue(flatten([for policy in aws_iam_role_policy.this : [for statement in jsondecode(policy.policy).Statement : [for resource in statement.Resource : can(regex("^arn:aws:(s3:::[a-z]+(/[a-z]+)*(/\\*)?|kms:.*:key/[a-z]+)$", resource))]]]))
    error_message = "No resource may be more than a folder."
  }
}

run "only_the_named_service_account_takes_a_role" {
  assert {
    condition = jsondecode(aws_iam_role.this["serve"].assume_role_policy).Statement == [{
      Sid       = "PodIdentity"
      Effect    = "Allow"
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Principal = { Service = "pods.eks.amazonaws.com" }
      Condition = { StringEquals = {
        "aws:RequestTag/eks-cluster-arn"            = "arn:aws:eks:eu-central-1:111122223333:cluster/fairlead-test"
        "aws:RequestTag/kubernetes-namespace"       = "flights"
        "aws:RequestTag/kubernetes-service-account" = "models"
      } }
    }]
    error_message = "A role must be for one service account of one cluster."
  }

  assert {
    condition = { for name, association in aws_eks_pod_identity_association.this : name => "${association.namespace}/${association.service_account}" } == {
      backup = "fairlead-system/backup", materialize = "flights/materialize", serve = "flights/models", train = "flights/training"
    }
    error_message = "Every workload must have its association."
  }

  assert {
    condition     = alltrue([for tags in concat(values(aws_iam_role.this)[*].tags, values(aws_eks_pod_identity_association.this)[*].tags) : tags.Owner == "forecasting" && startswith(tags.Name, "fairlead-test-")])
    error_message = "Every resource must have the given tags and a name."
  }
}

run "the_operator_has_no_role" {
  command = plan

  variables {
    name      = "F"
    workloads = { operator = { kind = "operator", namespace = "fairlead-system", service_account = "fairlead-operator", folder = "x" } }
  }

  expect_failures = [var.name, var.workloads]
}

run "a_folder_is_no_wildcard" {
  command = plan

  variables {
    workloads = { serve = { kind = "model_server", namespace = "flights", service_account = "models", folder = "*" } }
  }

  expect_failures = [var.workloads]
}

run "a_name_fits_into_a_role_name" {
  command = plan

  variables {
    workloads = { "Serve it" = { kind = "model_server", namespace = "flights", service_account = "models", folder = "flights" } }
  }

  expect_failures = [var.workloads]
}

run "a_service_account_has_one_role" {
  command = plan

  variables {
    workloads = {
      serve = { kind = "model_server", namespace = "flights", service_account = "models", folder = "flights" }
      train = { kind = "training", namespace = "flights", service_account = "models", folder = "flights" }
    }
  }

  expect_failures = [var.workloads]
}
