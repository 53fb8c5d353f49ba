mock_provider "aws" {
  source = "../../testing"
}

variables {
  name               = "fairlead-test"
  availability_zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  tags               = { Owner = "forecasting" }
}

run "a_private_network_over_three_zones" {
  assert {
    condition     = length(aws_nat_gateway.this) == 3
    error_message = "There must be a NAT gateway in each zone."
  }

  assert {
    condition = alltrue([
      for zone, route in aws_route.private : route.nat_gateway_id == aws_nat_gateway.this[zone].id
    ])
    error_message = "A zone's traffic must leave through its own NAT gateway."
  }

  assert {
    condition     = [for zone in var.availability_zones : aws_subnet.private[zone].cidr_block] == ["10.20.0.0/19", "10.20.32.0/19", "10.20.64.0/19"]
    error_message = "Private subnets must be the first three eighths."
  }

  assert {
    condition     = [for zone in var.availability_zones : aws_subnet.public[zone].cidr_block] == ["10.20.192.0/22", "10.20.196.0/22", "10.20.200.0/22"]
    error_message = "Public subnets must begin at three quarters."
  }

  assert {
    condition = alltrue([for subnet in aws_subnet.private : subnet.tags["kubernetes.io/role/internal-elb"] == "1"]) && alltrue(
      [for subnet in aws_subnet.public : subnet.tags["kubernetes.io/role/elb"] == "1"]
    )
    error_message = "Subnets must carry the tags by which load balancers find them."
  }

  assert {
    condition     = !anytrue([for subnet in values(aws_subnet.public) : subnet.map_public_ip_on_launch])
    error_message = "Nothing may get a public address without asking for it."
  }

  assert {
    condition     = length(setsubtract(["ecr.api", "ecr.dkr", "eks-auth", "sts"], keys(aws_vpc_endpoint.interface))) == 0
    error_message = "Image pulls and Pod Identity must not depend on NAT."
  }

  assert {
    condition     = alltrue([for endpoint in aws_vpc_endpoint.interface : endpoint.private_dns_enabled])
    error_message = "Interface endpoints need private DNS."
  }

  assert {
    condition     = aws_vpc_endpoint.s3.vpc_endpoint_type == "Gateway" && length(aws_vpc_endpoint.s3.route_table_ids) == 3
    error_message = "S3 must be reached through a gateway endpoint from all private subnets."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.endpoints.cidr_ipv4 == var.cidr && aws_vpc_security_group_ingress_rule.endpoints.from_port == 443 && aws_vpc_security_group_ingress_rule.endpoints.to_port == 443
    error_message = "Endpoints must answer to the VPC alone, by TLS."
  }

  assert {
    condition     = aws_flow_log.this.traffic_type == "ALL" && aws_flow_log.this.log_destination == aws_cloudwatch_log_group.flow.arn
    error_message = "Flow logs must hold what was refused and what was accepted."
  }

  assert {
    condition     = aws_cloudwatch_log_group.flow.retention_in_days == 90
    error_message = "Flow logs must be kept for as long as was said."
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.flow_log.policy).Statement[0].Resource == [
      "arn:aws:logs:eu-central-1:111122223333:log-group:/aws/vpc/fairlead-test/flow",
      "arn:aws:logs:eu-central-1:111122223333:log-group:/aws/vpc/fairlead-test/flow:log-stream:*",
    ]
    error_message = "Flow logs may be written to their own group only."
  }

  assert {
    condition     = jsondecode(aws_iam_role.flow_log.assume_role_policy).Statement[0].Condition.StringEquals["aws:SourceAccount"] == "111122223333"
    error_message = "Only this account's flow logs may take the role."
  }

  assert {
    condition = alltrue([
      for tags in concat(
        [aws_vpc.this.tags, aws_internet_gateway.this.tags, aws_route_table.public.tags, aws_security_group.endpoints.tags],
        [aws_flow_log.this.tags, aws_cloudwatch_log_group.flow.tags, aws_iam_role.flow_log.tags, aws_vpc_endpoint.s3.tags],
        [for subnet in concat(values(aws_subnet.private), values(aws_subnet.public)) : subnet.tags],
        [for gateway in values(aws_nat_gateway.this) : gateway.tags],
        [for endpoint in values(aws_vpc_endpoint.interface) : endpoint.tags],
      ) : tags.Owner == "forecasting" && startswith(tags.Name, "fairlead-test")
    ])
    error_message = "Every resource must have the given tags and a name."
  }
}

run "one_nat_gateway_serves_all_zones_if_told_so" {
  state_key = "one_nat_gateway"

  variables {
    single_nat_gateway = true
  }

  assert {
    condition     = keys(aws_nat_gateway.this) == ["eu-central-1a"]
    error_message = "There must be one NAT gateway, in the first zone."
  }

  assert {
    condition = alltrue([
      for route in aws_route.private : route.nat_gateway_id == aws_nat_gateway.this["eu-central-1a"].id
    ]) && length(aws_route.private) == 3
    error_message = "All zones' traffic must leave through the one NAT gateway."
  }
}

run "wrong_values_are_refused" {
  command = plan

  variables {
    availability_zones      = ["eu-central-1a", "eu-central-1b"]
    name                    = "Fairlead"
    cidr                    = "10.0.0.0/24"
    flow_log_retention_days = 2
    interface_endpoints     = ["ecr.api", "ecr.dkr"]
  }

  expect_failures = [var.availability_zones, var.name, var.cidr, var.flow_log_retention_days, var.interface_endpoints]
}
