output "bucket_arns" {
  description = "Buckets by purpose: backups, features, models."
  value       = { for purpose, bucket in aws_s3_bucket.this : purpose => local.arns[purpose] }
}

output "bucket_names" {
  description = "Names of the buckets by purpose: backups, features, models."
  value       = { for purpose, bucket in aws_s3_bucket.this : purpose => bucket.bucket }
}

output "kms_key_arn" {
  description = "Key of everything in the buckets."
  value       = aws_kms_key.this.arn
}
