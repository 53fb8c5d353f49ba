output "bucket_names" {
  description = "Names of the buckets by purpose: backups, features, models."
  value       = module.storage.bucket_names
}

output "cluster_name" {
  description = "Name of the cluster, for `aws eks update-kubeconfig`."
  value       = module.cluster.name
}

output "feature_store_yaml" {
  description = "The `online_store` of a feature_store.yaml, as YAML; the password comes from REDIS_PASSWORD."
  value       = yamlencode({ online_store = module.online_store.feast_online_store })
}

output "helm_values" {
  description = "Values of the chart `fairlead`, as YAML."
  value       = yamlencode(local.helm_values)
}

output "ledger_database" {
  description = "Where the ledger's database is, and the secret with its administrator's password."
  value = {
    database   = module.ledger_database.database
    host       = module.ledger_database.host
    port       = module.ledger_database.port
    secret_arn = module.ledger_database.master_user_secret_arn
  }
}

output "nat_addresses" {
  description = "Public addresses that traffic from the private subnets comes from."
  value       = module.network.nat_addresses
}

output "online_store_address" {
  description = "Address of the online store with TLS, as Feast's connection strings begin."
  value       = module.online_store.address
}

output "online_store_secret_arn" {
  description = "Secret with the online store's password."
  value       = module.online_store.auth_token_secret_arn
}

output "registry" {
  description = "What the images' names begin with."
  value       = module.registries.registry
}

output "role_arns" {
  description = "Roles by workload."
  value       = module.workload_identity.role_arns
}
