mock_provider "aws" {
  source = "../../testing"
}

variables {
  name = "fairlead-test"
  tags = { Owner = "forecasting" }
}

run "images_cannot_be_replaced_and_are_scanned" {
  assert {
    condition     = output.repository_names == { operator = "fairlead-test/operator", server = "fairlead-test/server" }
    error_message = "Images must lie below the installation's name."
  }

  assert {
    condition     = output.registry == "111122223333.dkr.ecr.eu-central-1.amazonaws.com/fairlead-test"
    error_message = "The registry must be what images' names begin with."
  }

  assert {
    condition     = alltrue([for repository in aws_ecr_repository.this : repository.image_tag_mutability == "IMMUTABLE"])
    error_message = "A tag must stay what it is."
  }

  assert {
    condition     = alltrue([for repository in aws_ecr_repository.this : repository.image_scanning_configuration[0].scan_on_push])
    error_message = "Images must be scanned."
  }

  assert {
    condition     = alltrue([for repository in aws_ecr_repository.this : repository.encryption_configuration[0].encryption_type == "KMS"])
    error_message = "Images must be encrypted by a key."
  }

  assert {
    condition     = !anytrue([for repository in values(aws_ecr_repository.this) : repository.force_delete])
    error_message = "A registry that is not empty must not be destroyed."
  }

  assert {
    condition = length(aws_ecr_lifecycle_policy.this) == 2 && alltrue([
      for policy in aws_ecr_lifecycle_policy.this : jsondecode(policy.policy).rules[*].selection.countNumber == [14, 200]
    ])
    error_message = "What has no tag, and the oldest of too many, must go."
  }

  assert {
    condition     = alltrue([for repository in aws_ecr_repository.this : repository.tags.Owner == "forecasting" && startswith(repository.tags.Name, "fairlead-test/")])
    error_message = "Every resource must have the given tags and a name."
  }
}

run "wrong_values_are_refused" {
  command = plan

  variables {
    kept_images  = 3
    name         = "fairlead-"
    repositories = ["operator"]
  }

  expect_failures = [var.kept_images, var.name, var.repositories]
}
