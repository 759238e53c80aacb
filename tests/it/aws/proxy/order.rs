//! What EC2 refuses while something is in use, and moto does not: kept from the calls that went by.

use std::collections::{BTreeMap, BTreeSet};

use super::request::Request;

/// Something that keeps others from being deleted.
#[derive(Debug, Default)]
struct User {
    uses: BTreeSet<String>,
    /// It has a public address.
    public: bool,
}

#[derive(Debug, Default)]
pub struct Order {
    users: BTreeMap<String, User>,
    /// Subnet to VPC, gateway to VPC.
    inside: BTreeMap<String, String>,
    /// Association of an address, to what it is associated with and the address.
    addresses: BTreeMap<String, (String, String)>,
    /// Names of key pairs by id: moto deletes them by name only.
    keys: BTreeMap<String, String>,
}

pub(super) fn element(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    Some(rest.split_once('<')?.0.to_owned())
}

impl Order {
    /// A call took effect.
    pub fn happened(&mut self, action: &str, request: &Request, body: &str) {
        let made = |name: &str| element(body, name).unwrap_or_default();
        let using = |parts: &[&str], public: bool| User {
            uses: parts.iter().flat_map(|part| request.fields(part)).map(str::to_owned).collect(),
            public,
        };
        match action {
            "ec2:CreateSubnet" => {
                self.inside.insert(made("subnetId"), request.field("VpcId").to_owned());
            }
            "ec2:CreateSecurityGroup" => {
                self.users.insert(made("groupId"), using(&["VpcId"], false));
            }
            "ec2:DeleteSecurityGroup" => self.over(request.field("GroupId")),
            "ec2:AttachInternetGateway" => {
                self.inside.insert(request.field("InternetGatewayId").to_owned(), request.field("VpcId").to_owned());
            }
            "ec2:DetachInternetGateway" => {
                self.inside.remove(request.field("InternetGatewayId"));
            }
            "ec2:CreateVpcEndpoint" => {
                self.users.insert(made("vpcEndpointId"), using(&["VpcId", "SubnetId", "SecurityGroupId"], false));
            }
            "ec2:CreateNatGateway" => {
                self.users.insert(made("natGatewayId"), using(&["SubnetId", "AllocationId"], true));
            }
            "ec2:RunInstances" => {
                let public = request.fields("AssociatePublicIpAddress").contains(&"true");
                self.users.insert(made("instanceId"), using(&["SubnetId", "SecurityGroupId"], public));
            }
            "ec2:ImportKeyPair" => {
                self.keys.insert(made("keyPairId"), request.field("KeyName").to_owned());
            }
            "ec2:AssociateAddress" => {
                let (instance, address) = (request.field("InstanceId"), request.field("AllocationId"));
                self.addresses.insert(made("associationId"), (instance.to_owned(), address.to_owned()));
            }
            "ec2:DisassociateAddress" => {
                self.addresses.remove(request.field("AssociationId"));
            }
            _ => {}
        }
    }

    /// The name of a key pair, by its id.
    pub fn key(&self, id: &str) -> Option<&String> {
        self.keys.get(id)
    }

    /// It was seen deleted.
    pub fn over(&mut self, id: &str) {
        self.users.remove(id);
        self.addresses.retain(|_, (user, _)| user != id);
    }

    /// The code and the reason of a refusal.
    pub fn forbids(&self, action: &str, request: &Request) -> Option<(&'static str, String)> {
        let user_of = |id: &str| {
            let user = self.users.iter().find(|(_, user)| user.uses.contains(id)).map(|(user, _)| user);
            user.map(|user| ("DependencyViolation", format!("{id} has dependencies and cannot be deleted: {user}")))
        };
        match action {
            "ec2:DeleteSubnet" => user_of(request.field("SubnetId")),
            "ec2:DeleteSecurityGroup" => user_of(request.field("GroupId")),
            "ec2:DeleteVpc" => user_of(request.field("VpcId")),
            "ec2:ReleaseAddress" => {
                let id = request.field("AllocationId");
                let associated = self.addresses.values().any(|(_, address)| address == id);
                (associated || user_of(id).is_some())
                    .then(|| ("InvalidIPAddress.InUse", format!("the address with allocation id {id} is in use")))
            }
            "ec2:DetachInternetGateway" => {
                let vpc = request.field("VpcId");
                let here = |id: &String| self.inside.get(id).is_some_and(|inside| inside == vpc);
                let user = self.users.iter().find(|(_, user)| user.public && user.uses.iter().any(here))?;
                let why = format!("Network {vpc} has some mapped public address(es), of {}", user.0);
                Some(("DependencyViolation", why))
            }
            "ec2:DeleteInternetGateway" => {
                let id = request.field("InternetGatewayId");
                let vpc = self.inside.get(id)?;
                Some(("DependencyViolation", format!("The internetGateway '{id}' is attached to {vpc}")))
            }
            _ => None,
        }
    }
}
