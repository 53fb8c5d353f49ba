output "database" {
  description = "Name of the database."
  value       = aws_db_instance.this.db_name
}

output "host" {
  description = "Name of the server."
  value       = aws_db_instance.this.address
}

output "master_user_secret_arn" {
  description = "Secret with the administrator's name and password, kept by RDS."
  value       = one(aws_db_instance.this.master_user_secret[*].secret_arn)
}

output "port" {
  description = "Port of the server."
  value       = local.port
}
