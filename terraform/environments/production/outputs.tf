output "bucket_names" {
  description = "Names of the buckets by purpose: backups, features, models."
  value       = module.platform.bucket_names
}

output "cluster_name" {
  description = "Name of the cluster, for `aws eks update-kubeconfig`."
  value       = module.platform.cluster_name
}

output "feature_store_yaml" {
  description = "The `online_store` of a feature_store.yaml, as YAML; the password comes from REDIS_PASSWORD."
  value       = module.platform.feature_store_yaml
}

output "helm_values" {
  description = "Values of the chart `fairlead`, as YAML."
  value       = module.platform.helm_values
}

output "ledger_database" {
  description = "Where the ledger's database is, and the secret with its administrator's password."
  value       = module.platform.ledger_database
}

output "nat_addresses" {
  description = "Public addresses that traffic from the private subnets comes from."
  value       = module.platform.nat_addresses
}

output "online_store_address" {
  description = "Address of the online store with TLS, as Feast's connection strings begin."
  value       = module.platform.online_store_address
}

output "online_store_secret_arn" {
  description = "Secret with the online store's password."
  value       = module.platform.online_store_secret_arn
}

output "registry" {
  description = "What the images' names begin with."
  value       = module.platform.registry
}

output "role_arns" {
  description = "Roles by workload."
  value       = module.platform.role_arns
}
