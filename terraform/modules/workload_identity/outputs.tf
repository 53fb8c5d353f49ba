output "role_arns" {
  description = "Roles by workload."
  value       = { for name, role in aws_iam_role.this : name => role.arn }
}
