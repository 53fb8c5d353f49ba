mock_provider "aws" {
  source = "../../testing"
}

variables {
  name       = "fairlead-test"
  subnet_ids = ["subnet-a", "subnet-b", "subnet-c"]
  tags       = { Owner = "forecasting" }
  access_entries = {
    admin   = { principal_arn = "arn:aws:iam::111122223333:role/admin", policy = "ClusterAdmin" }
    flights = { principal_arn = "arn:aws:iam::111122223333:role/flights", policy = "Edit", namespaces = ["flights"], kubernetes_groups = ["flights"] }
  }
  node_groups = {
    models = {
      instance_types = ["c7i.large"], min_size = 3, max_size = 9
      taints         = [{ key = "models", effect = "NO_SCHEDULE" }]
    }
  }
}

run "the_cluster_is_private_and_encrypted" {
  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_private_access && !aws_eks_cluster.this.vpc_config[0].endpoint_public_access
    error_message = "The API server must have a private endpoint only."
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.private_access) == 0
    error_message = "Nothing outside the VPC may reach the private endpoint unless it is named."
  }

  assert {
    condition     = aws_eks_cluster.this.encryption_config[0].provider[0].key_arn == aws_kms_key.this.arn && tolist(aws_eks_cluster.this.encryption_config[0].resources) == tolist(["secrets"])
    error_message = "Secrets must be encrypted by the cluster's key."
  }

  assert {
    condition     = aws_kms_key.this.enable_key_rotation
    error_message = "The key must rotate."
  }

  assert {
    condition     = length(aws_eks_cluster.this.enabled_cluster_log_types) == 5 && aws_cloudwatch_log_group.this.name == "/aws/eks/fairlead-test/cluster" && aws_cloudwatch_log_group.this.kms_key_id == aws_kms_key.this.arn
    error_message = "All logs of the control plane must be kept, encrypted, in the group that EKS writes to."
  }

  assert {
    condition     = jsondecode(aws_kms_key.this.policy).Statement[1].Condition.ArnEquals["kms:EncryptionContext:aws:logs:arn"] == "arn:aws:logs:eu-central-1:111122223333:log-group:/aws/eks/fairlead-test/cluster"
    error_message = "CloudWatch may use the key for this cluster's logs only."
  }

  assert {
    condition     = aws_eks_cluster.this.access_config[0].authentication_mode == "API" && !aws_eks_cluster.this.access_config[0].bootstrap_cluster_creator_admin_permissions
    error_message = "Access must come from access entries alone."
  }

  assert {
    condition     = aws_eks_access_policy_association.this["admin"].access_scope[0].type == "cluster" && endswith(aws_eks_access_policy_association.this["admin"].policy_arn, "AmazonEKSClusterAdminPolicy")
    error_message = "The administrator must hold everywhere."
  }

  assert {
    condition     = aws_eks_access_policy_association.this["flights"].access_scope[0].type == "namespace" && aws_eks_access_policy_association.this["flights"].access_scope[0].namespaces == toset(["flights"])
    error_message = "A team must hold in its namespaces only."
  }

  assert {
    condition     = aws_eks_access_entry.this["flights"].kubernetes_groups == toset(["flights"])
    error_message = "A team must be in its groups of RBAC."
  }

  assert {
    condition     = aws_eks_cluster.this.kubernetes_network_config[0].service_ipv4_cidr == output.service_cidr
    error_message = "Services must have the range that is told."
  }

  assert {
    condition     = keys(aws_eks_addon.before_nodes) == ["eks-pod-identity-agent", "kube-proxy", "vpc-cni"] && keys(aws_eks_addon.on_nodes) == ["coredns", "metrics-server"]
    error_message = "Add-ons must be those that serving needs, with metrics for the autoscaler."
  }

  assert {
    condition     = jsondecode(aws_eks_addon.before_nodes["vpc-cni"].configuration_values).enableNetworkPolicy == "true"
    error_message = "NetworkPolicies must be enforced."
  }

  assert {
    condition     = one(aws_eks_addon.before_nodes["vpc-cni"].pod_identity_association).service_account == "aws-node"
    error_message = "The network add-on must have a role of its own."
  }

  assert {
    condition     = !contains(local.node_policies, "AmazonEKS_CNI_Policy") && !contains(local.node_policies, "AmazonEC2ContainerRegistryReadOnly") && length(aws_iam_role_policy_attachment.node) == 2
    error_message = "Nodes may pull images and join, nothing else."
  }

  assert {
    condition     = jsondecode(aws_iam_role.vpc_cni.assume_role_policy).Statement[0].Condition.StringEquals["aws:RequestTag/eks-cluster-arn"] == aws_eks_cluster.this.arn
    error_message = "Only this cluster's network add-on may take its role."
  }

  assert {
    condition     = aws_launch_template.node["models"].metadata_options[0].http_tokens == "required" && aws_launch_template.node["models"].metadata_options[0].http_put_response_hop_limit == 1
    error_message = "Pods must not reach the node's credentials."
  }

  assert {
    condition     = tobool(aws_launch_template.node["models"].block_device_mappings[0].ebs[0].encrypted)
    error_message = "Disks must be encrypted."
  }

  assert {
    condition     = aws_eks_node_group.this["models"].scaling_config[0].max_size == 9 && one(aws_eks_node_group.this["models"].taint).key == "models" && aws_eks_node_group.this["models"].launch_template[0].version == "7"
    error_message = "A node group must be as described, on its launch template's latest version."
  }

  assert {
    condition = alltrue([
      for tags in concat(
        [aws_kms_key.this.tags, aws_cloudwatch_log_group.this.tags, aws_iam_role.cluster.tags, aws_iam_role.node.tags],
        [aws_iam_role.vpc_cni.tags, aws_eks_cluster.this.tags],
        [for addon in concat(values(aws_eks_addon.before_nodes), values(aws_eks_addon.on_nodes)) : addon.tags],
        [for entry in values(aws_eks_access_entry.this) : entry.tags],
        [for group in values(aws_eks_node_group.this) : group.tags],
        flatten([for template in values(aws_launch_template.node) : [template.tags, template.tag_specifications[*].tags]]),
      ) : tags.Owner == "forecasting" && startswith(tags.Name, "fairlead-test")
    ])
    error_message = "Every resource must have the given tags and a name."
  }
}

run "named_ranges_reach_the_endpoints" {
  command = plan

  variables {
    private_access_cidrs = ["10.8.0.0/16"]
    public_access_cidrs  = ["192.0.2.0/24"]
  }

  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_public_access && aws_eks_cluster.this.vpc_config[0].public_access_cidrs == toset(["192.0.2.0/24"])
    error_message = "A public endpoint must answer to the named ranges only."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.private_access["10.8.0.0/16"].from_port == 443 && aws_vpc_security_group_ingress_rule.private_access["10.8.0.0/16"].to_port == 443
    error_message = "The private endpoint must answer to the named ranges by TLS only."
  }
}

run "wrong_values_are_refused" {
  command = plan

  variables {
    access_entries       = { team = { principal_arn = "arn:aws:iam::111122223333:role/a", policy = "Edit" } }
    addon_versions       = { istio = "1" }
    deletion_window_days = 3
    kubernetes_version   = "1.20"
    log_retention_days   = 2
    name                 = "Fairlead"
    node_groups          = {}
    private_access_cidrs = ["0.0.0.0/0"]
    public_access_cidrs  = ["0.0.0.0/0"]
    service_cidr         = "172.20.0.0/30"
    subnet_ids           = ["subnet-a"]
  }

  expect_failures = [
    var.access_entries, var.addon_versions, var.deletion_window_days, var.kubernetes_version, var.log_retention_days,
    var.name, var.node_groups, var.private_access_cidrs, var.public_access_cidrs, var.service_cidr, var.subnet_ids,
  ]
}

run "inconsistent_entries_and_groups_are_refused" {
  command = plan

  variables {
    access_entries = {
      admin = { principal_arn = "arn:aws:iam::111122223333:role/a", policy = "ClusterAdmin", namespaces = ["flights"] }
    }
    node_groups = { models = { instance_types = ["c7i.large"], min_size = 3, max_size = 2 } }
  }

  expect_failures = [var.access_entries, var.node_groups]
}

run "groups_of_others_are_refused" {
  command = plan

  variables {
    access_entries = {
      admin = { principal_arn = "arn:aws:iam::111122223333:role/a", policy = "ClusterAdmin", kubernetes_groups = ["system:masters"] }
    }
  }

  expect_failures = [var.access_entries]
}

run "unknown_policies_and_capacities_are_refused" {
  command = plan

  variables {
    access_entries = {
      admin = { principal_arn = "arn:aws:iam::111122223333:role/a", policy = "ClusterAdmin" }
      team  = { principal_arn = "arn:aws:iam::111122223333:role/b", policy = "Root" }
    }
    node_groups = { models = { instance_types = ["c7i.large"], min_size = 1, max_size = 2, capacity_type = "CHEAP" } }
  }

  expect_failures = [var.access_entries, var.node_groups]
}
