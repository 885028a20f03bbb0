//! Devices of other machines, through Burn's remote backend over WebSocket: for a trusted network.

use anyhow::{Context, Result};
use burn::server::{RemoteServer, WebSocketTransport};
use burn::tensor::Device;
use burn::tensor::remote::RemoteHost;

/// Serves this machine's device until Ctrl-C.
pub(crate) fn serve(port: u16) -> Result<()> {
    println!("serving {:?} at port {port}", Device::default());
    RemoteServer::new([Device::default()])
        .serve(WebSocketTransport::new(port))
        .with_context(|| format!("cannot serve at port {port}"))
}

/// One device for each address.
pub(crate) fn connect(addresses: &[String]) -> Result<Vec<Device>> {
    let connect = |address: &String| {
        Device::remote_options(&RemoteHost::websocket(address))
            .init()
            .with_context(|| format!("cannot reach `{address}`; is `--serve` running there?"))
    };
    addresses.iter().map(connect).collect()
}
