output "registry" {
  description = "The chart's `image.registry`: what the images' names begin with."
  value       = "${local.host}/${var.name}"
}

output "repository_names" {
  description = "Names of the repositories by image."
  value       = { for image, repository in aws_ecr_repository.this : image => repository.name }
}
