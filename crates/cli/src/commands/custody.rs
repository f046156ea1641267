//! `custody`: what the holders of the vault's key agree on. One file a step.

mod ages;
mod approve;
mod confirm;
mod confirmed;
mod direct;
mod drill;
mod execute;
pub mod left;
mod list;
pub mod operations;
mod propose;
mod recover;
mod rotate;
mod run_facts;
mod show;
mod tell;

use anyhow::Result;

use crate::args::{Custody, CustodyCommand as C, Proposal};

pub fn run(args: Custody) -> Result<()> {
    match args.command {
        C::List(args) => list::run(&args),
        C::Propose(args) => propose::run(&args),
        C::Show(args) => show::run(&args),
        C::Approve(args) => approve::run(&args),
        C::Execute(args) => execute::run(&args),
        C::Confirm(args) => confirm::run(&args),
        C::Recover(args) => recover::run(&args),
        C::Rotate(args) => rotate::run(&args),
        C::AddCustodian(args) => direct::run(args, Proposal::AddCustodian),
        C::RemoveCustodian(args) => direct::renew(args, Proposal::RemoveCustodian),
        C::Quorum(args) => direct::renew(args, Proposal::Quorum),
        C::EnrollGateway(args) => direct::run(args, Proposal::EnrollGateway),
        C::RevokeGateway(args) => direct::run(args, Proposal::RevokeGateway),
        C::AdmitGateway(args) => direct::run(args, Proposal::AdmitGateway),
        C::DismissGateway(args) => direct::run(args, Proposal::DismissGateway),
        C::AddReader(args) => direct::run(args, Proposal::AddReader),
        C::RemoveReader(args) => direct::run(args, Proposal::RemoveReader),
        C::Grant(args) => direct::run(args, Proposal::Grant),
        C::Revoke(args) => direct::run(args, Proposal::Revoke),
        C::Rekey(args) => direct::run(args, Proposal::Rekey),
        C::Retire(args) => direct::run(args, Proposal::Retire),
    }
}
