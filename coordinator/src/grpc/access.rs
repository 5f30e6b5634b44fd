//! Who may call what: one table over all RPCs, walked by a test over the service descriptor.

use coord_shared::tls::PeerKind;

use crate::app::authorize::Role;

/// What an RPC asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nobody in particular: the handler checks what the message proves.
    Anyone,
    /// The agent of a host.
    Agent,
    /// An operator with at least this role.
    Operator(Role),
}

impl Access {
    /// The kind of certificate that is needed, if any.
    pub const fn kind(self) -> Option<PeerKind> {
        match self {
            Access::Anyone => None,
            Access::Agent => Some(PeerKind::Agent),
            Access::Operator(_) => Some(PeerKind::Operator),
        }
    }
}

const VIEWER: Access = Access::Operator(Role::Viewer);
const RESTORER: Access = Access::Operator(Role::Restorer);
const OPERATOR: Access = Access::Operator(Role::Operator);
const ADMIN: Access = Access::Operator(Role::Admin);

/// RPCs of the main listener.
pub const MAIN: &[(&str, Access)] = &[
    ("/coord.v1.AgentService/Session", Access::Agent),
    ("/coord.v1.AgentService/UploadIndex", Access::Agent),
    ("/coord.v1.AgentService/GetIndexProgress", Access::Agent),
    ("/coord.v1.AgentService/SendFile", Access::Agent),
    ("/coord.v1.AgentService/SendPreview", Access::Agent),
    ("/coord.v1.OperatorService/GetVersion", VIEWER),
    ("/coord.v1.OperatorService/GetStatus", VIEWER),
    ("/coord.v1.OperatorService/Explain", VIEWER),
    ("/coord.v1.OperatorService/GetSchedule", VIEWER),
    ("/coord.v1.OperatorService/WhatIf", VIEWER),
    ("/coord.v1.OperatorService/ListCoordinators", VIEWER),
    ("/coord.v1.OperatorService/DrainCoordinator", ADMIN),
    ("/coord.v1.OperatorService/CreateToken", OPERATOR),
    ("/coord.v1.OperatorService/ListTokens", VIEWER),
    ("/coord.v1.OperatorService/RevokeToken", OPERATOR),
    ("/coord.v1.OperatorService/ListHosts", VIEWER),
    ("/coord.v1.OperatorService/GetHost", VIEWER),
    ("/coord.v1.OperatorService/LabelHost", OPERATOR),
    ("/coord.v1.OperatorService/RevokeHost", OPERATOR),
    ("/coord.v1.OperatorService/ListUsers", VIEWER),
    ("/coord.v1.OperatorService/DisableUser", ADMIN),
    ("/coord.v1.OperatorService/ListPolicies", VIEWER),
    ("/coord.v1.OperatorService/GetPolicy", VIEWER),
    ("/coord.v1.OperatorService/LintPolicy", VIEWER),
    ("/coord.v1.OperatorService/ApplyPolicy", OPERATOR),
    ("/coord.v1.OperatorService/ApplyPolicies", OPERATOR),
    ("/coord.v1.OperatorService/DiffPolicies", VIEWER),
    ("/coord.v1.OperatorService/GetPolicyDefaults", VIEWER),
    ("/coord.v1.OperatorService/GetPolicyHistory", VIEWER),
    ("/coord.v1.OperatorService/RollbackPolicy", OPERATOR),
    ("/coord.v1.OperatorService/DeletePolicy", OPERATOR),
    ("/coord.v1.OperatorService/PreviewPolicy", OPERATOR),
    ("/coord.v1.OperatorService/ListJobs", VIEWER),
    ("/coord.v1.OperatorService/GetJob", VIEWER),
    ("/coord.v1.OperatorService/StartBackup", OPERATOR),
    ("/coord.v1.OperatorService/ListLimits", VIEWER),
    ("/coord.v1.OperatorService/SetLimit", OPERATOR),
    ("/coord.v1.OperatorService/RemoveLimit", OPERATOR),
    ("/coord.v1.OperatorService/ListPauses", VIEWER),
    ("/coord.v1.OperatorService/SetPause", OPERATOR),
    ("/coord.v1.OperatorService/EndPause", OPERATOR),
    ("/coord.v1.OperatorService/ListRuns", VIEWER),
    ("/coord.v1.OperatorService/GetRun", VIEWER),
    ("/coord.v1.OperatorService/WatchRun", VIEWER),
    ("/coord.v1.OperatorService/ListRunWarnings", VIEWER),
    ("/coord.v1.OperatorService/ListRunEvents", VIEWER),
    ("/coord.v1.OperatorService/CancelRun", OPERATOR),
    ("/coord.v1.OperatorService/RetryRun", OPERATOR),
    ("/coord.v1.OperatorService/ReportDedup", VIEWER),
    ("/coord.v1.OperatorService/ReportObjectives", VIEWER),
    ("/coord.v1.OperatorService/ListBackups", VIEWER),
    ("/coord.v1.OperatorService/GetBackup", VIEWER),
    ("/coord.v1.OperatorService/GetCatalogStatus", VIEWER),
    ("/coord.v1.OperatorService/RebuildCatalog", OPERATOR),
    ("/coord.v1.OperatorService/ListFiles", VIEWER),
    ("/coord.v1.OperatorService/ReadFile", RESTORER),
    ("/coord.v1.OperatorService/ListPathVersions", VIEWER),
    ("/coord.v1.OperatorService/DiffFiles", VIEWER),
    ("/coord.v1.OperatorService/PlanRestore", VIEWER),
    ("/coord.v1.OperatorService/StartRestore", RESTORER),
];

/// RPCs of the enrolment listener. Both prove themselves: by a token, by a certificate that may have expired.
pub const ENROLMENT: &[(&str, Access)] =
    &[("/coord.v1.EnrolmentService/Join", Access::Anyone), ("/coord.v1.EnrolmentService/Renew", Access::Anyone)];

/// What `path` asks for on the main listener; `None` for what is no RPC of it.
pub fn of(path: &str) -> Option<Access> {
    MAIN.iter().find(|(known, _)| *known == path).map(|(_, access)| *access)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;

    #[test]
    fn every_rpc_of_the_contract_is_in_the_table_and_nothing_else() {
        let descriptors = prost_types::FileDescriptorSet::decode(coord_shared::api::DESCRIPTORS).unwrap();
        let mut contract = BTreeSet::new();
        for file in &descriptors.file {
            for service in &file.service {
                for method in &service.method {
                    contract.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        let table: BTreeSet<String> = MAIN.iter().chain(ENROLMENT).map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(contract, table);
        assert!(contract.len() > 30);
    }
}
