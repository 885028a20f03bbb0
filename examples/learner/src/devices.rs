//! The devices that train the model, and how they divide the work.

use anyhow::{Result, ensure};
use burn::tensor::Device;
use burn::tensor::distributed::{DistributedConfig, ReduceOperation};
use burn::train::{ExecutionStrategy, MultiDeviceOptim};
use clap::{Args, ValueEnum};

/// The devices of a run.
#[derive(Debug, Args)]
pub(crate) struct Devices {
    /// Train on this many devices of the default kind
    #[arg(long, default_value_t = 1)]
    devices: usize,
    /// How several devices divide the work
    #[arg(long, value_enum, default_value_t = Together::Main)]
    together: Together,
    /// Train on the devices that these machines serve, separated by commas
    #[cfg(feature = "remote")]
    #[arg(long, value_name = "ws://HOST:PORT", value_delimiter = ',')]
    remote: Vec<String>,
    /// Serve this machine's device at this port, and do nothing else
    #[cfg(feature = "remote")]
    #[arg(long, value_name = "PORT")]
    pub(crate) serve: Option<u16>,
}

/// How several devices divide the work.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Together {
    /// The first device sums all gradients and updates the model.
    Main,
    /// Each parameter is updated on the device that has its gradient.
    Sharded,
    /// Each device has a model and updates it; a collective takes the mean of the gradients (CUDA).
    Ddp,
}

impl Devices {
    /// The devices. A backend other than CUDA gives its default device several times.
    pub(crate) fn connect(&self) -> Result<Vec<Device>> {
        ensure!(self.devices > 0, "--devices is 0; give at least 1");
        #[cfg(feature = "remote")]
        if !self.remote.is_empty() {
            return remote::connect(&self.remote);
        }
        #[cfg(feature = "cuda")]
        if self.devices > 1 {
            return Ok((0..self.devices).map(Device::cuda).collect());
        }
        Ok(vec![Device::default(); self.devices])
    }

    /// How many devices' gradients are summed. `ddp` takes their mean.
    pub(crate) fn summed(&self, devices: usize) -> usize {
        match self.together {
            Together::Main | Together::Sharded => devices,
            Together::Ddp => 1,
        }
    }

    /// How several devices run the training.
    pub(crate) fn strategy(&self, devices: Vec<Device>) -> ExecutionStrategy {
        match self.together {
            Together::Main => ExecutionStrategy::multi(devices, MultiDeviceOptim::OptimMainDevice),
            Together::Sharded => ExecutionStrategy::multi(devices, MultiDeviceOptim::OptimSharded),
            Together::Ddp => {
                let all_reduce_op = ReduceOperation::Mean;
                ExecutionStrategy::ddp(devices, DistributedConfig { all_reduce_op })
            }
        }
    }
}

/// Devices of other machines, over Burn's remote backend. The connection has no encryption and no
/// password: use it only in a network that you trust.
#[cfg(feature = "remote")]
pub(crate) mod remote {
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
    pub(super) fn connect(addresses: &[String]) -> Result<Vec<Device>> {
        let connect = |address: &String| {
            Device::remote_options(&RemoteHost::websocket(address))
                .init()
                .with_context(|| format!("cannot reach `{address}`; is `--serve` running there?"))
        };
        addresses.iter().map(connect).collect()
    }
}
