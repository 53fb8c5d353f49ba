output "cidr" {
  description = "IPv4 range of the VPC."
  value       = var.cidr
}

output "nat_addresses" {
  description = "Public addresses that traffic from the private subnets comes from."
  value       = [for zone in local.nat_zones : aws_eip.nat[zone].public_ip]
}

output "private_subnet_ids" {
  description = "Subnets of nodes and stores, one for each zone."
  value       = [for zone in var.availability_zones : aws_subnet.private[zone].id]
}

output "public_subnet_ids" {
  description = "Subnets of internet-facing load balancers, one for each zone."
  value       = [for zone in var.availability_zones : aws_subnet.public[zone].id]
}

output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}
