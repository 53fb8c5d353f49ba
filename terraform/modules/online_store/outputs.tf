output "address" {
  description = "Address of the store with TLS, as Feast's connection strings begin."
  value       = "${local.host}:${local.port},ssl=true"
}

output "auth_token_secret_arn" {
  description = "Secret with the password."
  value       = aws_secretsmanager_secret.auth_token.arn
}

output "feast_online_store" {
  description = "The `online_store` of a feature_store.yaml. Feast fills in the password from REDIS_PASSWORD."
  value = {
    type              = "redis"
    redis_type        = var.cluster_mode ? "redis_cluster" : "redis"
    connection_string = "${local.host}:${local.port},ssl=true,password=\"$${REDIS_PASSWORD}\""
  }
}

output "host" {
  description = "Name of the store: of the primary, or of the configuration endpoint in cluster mode."
  value       = local.host
}

output "port" {
  description = "Port of the store."
  value       = local.port
}
