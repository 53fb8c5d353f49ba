# Where the state is, is yours: terraform init -backend-config=FILE, with bucket, key, region, encrypt and use_lockfile
# (docs/install-aws.md). The state holds the online store's password.
terraform {
  backend "s3" {}
}
