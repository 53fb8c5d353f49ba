# What each workload may do on AWS: one role for each service account, by EKS Pod Identity, for one folder of a bucket.
#
# | kind | may |
# |---|---|
# | model_server | read and list the folder's models (`fairlead fetch`) |
# | training | read and write the folder's models, read the folder's features; it deletes nothing |
# | materialization | read the folder's features, write its registry (`FOLDER/registry/`) |
# | ledger_backup | write the folder's backups; it reads and deletes nothing |
#
# The operator talks to Kubernetes alone and has no role. Policies are written by `jsonencode`: the provider's own data
# source for them cannot be tested with a mocked provider.

locals {
  models   = { for name, workload in var.workloads : name => "${var.bucket_arns.models}/${workload.folder}/*" }
  features = { for name, workload in var.workloads : name => "${var.bucket_arns.features}/${workload.folder}/*" }
  registry = { for name, workload in var.workloads : name => "${var.bucket_arns.features}/${workload.folder}/registry/*" }
  backups  = { for name, workload in var.workloads : name => "${var.bucket_arns.backups}/${workload.folder}/*" }

  writing = ["s3:AbortMultipartUpload", "s3:PutObject"]

  objects = { for name, workload in var.workloads : name => {
    model_server = [
      { Sid = "ReadModels", Effect = "Allow", Action = ["s3:GetObject"], Resource = [local.models[name]] },
    ]
    training = [
      { Sid = "ReadModelsAndFeatures", Effect = "Allow", Action = ["s3:GetObject"], Resource = [local.features[name], local.models[name]] },
      { Sid = "WriteModels", Effect = "Allow", Action = local.writing, Resource = [local.models[name]] },
    ]
    materialization = [
      { Sid = "ReadFeatures", Effect = "Allow", Action = ["s3:GetObject"], Resource = [local.features[name]] },
      { Sid = "WriteRegistry", Effect = "Allow", Action = local.writing, Resource = [local.registry[name]] },
    ]
    ledger_backup = [
      { Sid = "WriteBackups", Effect = "Allow", Action = local.writing, Resource = [local.backups[name]] },
    ]
  }[workload.kind] }

  listed = {
    model_server    = ["models"]
    training        = ["features", "models"]
    materialization = ["features"]
    ledger_backup   = []
  }
  # Without the right to list, S3 answers "forbidden" to what is missing.
  listing = { for name, workload in var.workloads : name => [
    for purpose in local.listed[workload.kind] : {
      Sid       = "List${title(purpose)}"
      Effect    = "Allow"
      Action    = ["s3:ListBucket"]
      Resource  = [var.bucket_arns[purpose]]
      Condition = { StringLike = { "s3:prefix" = ["${workload.folder}/*"] } }
    }
  ] }

  key_actions = {
    model_server    = ["kms:Decrypt"]
    training        = ["kms:Decrypt", "kms:GenerateDataKey"]
    materialization = ["kms:Decrypt", "kms:GenerateDataKey"]
    ledger_backup   = ["kms:Decrypt", "kms:GenerateDataKey"] # the parts of a large object are read back by S3
  }
  key = { for name, workload in var.workloads : name => [
    { Sid = "UseKey", Effect = "Allow", Action = local.key_actions[workload.kind], Resource = [var.kms_key_arn] },
  ] }
}

resource "aws_iam_role" "this" {
  for_each = var.workloads

  name        = "${var.name}-${each.key}"
  description = "${each.value.kind} ${each.value.namespace}/${each.value.service_account}"
  tags        = merge(var.tags, { Name = "${var.name}-${each.key}" })

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "PodIdentity"
      Effect    = "Allow"
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Principal = { Service = "pods.eks.amazonaws.com" }
      Condition = { StringEquals = {
        "aws:RequestTag/eks-cluster-arn"            = var.cluster_arn
        "aws:RequestTag/kubernetes-namespace"       = each.value.namespace
        "aws:RequestTag/kubernetes-service-account" = each.value.service_account
      } }
    }]
  })
}

resource "aws_iam_role_policy" "this" {
  for_each = var.workloads

  name = each.value.kind
  role = aws_iam_role.this[each.key].name

  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = concat(local.objects[each.key], local.listing[each.key], local.key[each.key])
  })
}

resource "aws_eks_pod_identity_association" "this" {
  for_each = var.workloads

  cluster_name    = var.cluster_name
  namespace       = each.value.namespace
  service_account = each.value.service_account
  role_arn        = aws_iam_role.this[each.key].arn
  tags            = merge(var.tags, { Name = "${var.name}-${each.key}" })

  depends_on = [aws_iam_role_policy.this]
}
