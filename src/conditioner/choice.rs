//! A DEVICE → THE KERNELS that a load runs on there.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Device;

use crate::error::Result;
use crate::kernels::{self, Kernels, Reference};

/// Which kernels a load runs on, wherever it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    /// Plain ones.
    pub(super) reference: bool,
    /// How the best ones for a device work.
    pub(super) options: kernels::Options,
    latest: Latest,
}

/// Kernels of the last device that was not the CPU. What they compiled and measured serves again when
/// encoders come back to it.
#[derive(Clone, Debug, Default)]
struct Latest(Arc<Mutex<Option<Chosen>>>);

#[derive(Debug)]
struct Chosen {
    device: Device,
    options: kernels::Options,
    kernels: Arc<dyn Kernels>,
}

impl Latest {
    fn get_or_make(
        &self,
        device: &Device,
        options: &kernels::Options,
        make: impl FnOnce() -> Result<Arc<dyn Kernels>>,
    ) -> Result<Arc<dyn Kernels>> {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |it: &&Chosen| it.device.same_device(device) && it.options == *options;
        if let Some(chosen) = latest.as_ref().filter(same) {
            return Ok(Arc::clone(&chosen.kernels));
        }
        let kernels = make()?;
        *latest = Some(Chosen {
            device: device.clone(),
            options: options.clone(),
            kernels: Arc::clone(&kernels),
        });
        Ok(kernels)
    }
}

impl Choice {
    pub(super) fn kernels(&self, device: &Device) -> Result<Arc<dyn Kernels>> {
        if self.reference {
            return Ok(Arc::new(Reference::new(device)?));
        }
        let options = &self.options;
        let choose = || kernels::choose_with(device, options);
        if device.is_cpu() {
            return choose(); // it has nothing to compile, and keeps rooms
        }
        self.latest.get_or_make(device, options, choose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    #[test]
    fn kernels_serve_again_on_the_same_device_with_the_same_options() {
        let latest = Latest::default();
        let options = kernels::Options::default();
        let others = kernels::Options {
            capture: false,
            ..options.clone()
        };
        let get = |options| {
            let make = || Ok(Arc::new(Reference::new(&Device::Cpu)?) as Arc<dyn Kernels>);
            latest.get_or_make(&Device::Cpu, options, make).unwrap()
        };
        let first = get(&options);
        assert!(Arc::ptr_eq(&first, &get(&options)));
        let second = get(&others);
        assert!(!Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&second, &get(&others)));
        assert!(!Arc::ptr_eq(&first, &get(&options)));
    }

    #[test]
    fn what_cannot_be_made_is_tried_again() {
        let latest = Latest::default();
        let options = kernels::Options::default();
        let fail = || Err(Error::new(ErrorKind::Device, "no room"));
        assert!(latest.get_or_make(&Device::Cpu, &options, fail).is_err());
        let make = || Ok(Arc::new(Reference::new(&Device::Cpu)?) as Arc<dyn Kernels>);
        assert!(latest.get_or_make(&Device::Cpu, &options, make).is_ok());
    }
}
