//! The registers of a thread while it runs, taken by a timer of its processor
//! time: perf_event_open(2), which stops nobody.

use std::io;

use perf_event::data::Record;
use perf_event::events::Software;
use perf_event::{Builder, SampleFlag, Sampler};

use super::Sample;

/// Between two samples, in nanoseconds of the thread's processor time.
const PERIOD_NS: u64 = 200_000;
/// Bytes of the buffer: some 400 samples.
const BUFFER_BYTES: usize = 64 << 10;
/// Registers as linux/perf_regs.h numbers them on x86-64: rax to rip, r8 to r15.
const REGISTERS: u64 = 0x1ff | 0xff << 16;
/// Where rsp stands among them.
const STACK_POINTER: usize = 7;

/// The timer of a thread.
pub struct Running(Sampler);

impl std::fmt::Debug for Running {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Running")
    }
}

impl Running {
    /// Starts it.
    ///
    /// # Errors
    /// Those of perf_event_open(2).
    pub fn start(thread: u32) -> io::Result<Self> {
        let mut event = Builder::new(Software::TASK_CLOCK);
        event.observe_pid(thread.cast_signed()).any_cpu();
        // In the kernel, too: it then has the registers of user code.
        event.include_kernel().sample_period(PERIOD_NS).enabled(true);
        event.sample(SampleFlag::REGS_USER).sample_regs_user(REGISTERS);
        event.wakeup_watermark(BUFFER_BYTES);
        Ok(Self(event.build()?.sampled(BUFFER_BYTES)?))
    }

    /// Takes out the samples since the last time.
    pub fn drain(&mut self, sample: &mut Sample) {
        let mut lowest: Option<u64> = None;
        while let Some(record) = self.0.next_record() {
            let Ok(Record::Sample(one)) = record.parse_record() else { continue };
            let Some(registers) = one.regs_user() else { continue };
            sample.words.extend(registers.regs.iter());
            if let Some(&pointer) = registers.regs.get(STACK_POINTER) {
                lowest = Some(lowest.map_or(pointer, |lowest| lowest.min(pointer)));
            }
        }
        sample.stack_pointers.extend(lowest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that what a thread holds in a register alone is seen while it runs.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn registers_are_seen() {
        use std::sync::atomic::{AtomicBool, Ordering};
        use std::sync::mpsc::channel;
        const MARK: u64 = 0x1234_5678_9abc_def0;
        static END: AtomicBool = AtomicBool::new(false);
        let (send, receive) = channel();
        let thread = std::thread::spawn(move || {
            send.send(nix::unistd::gettid().as_raw()).unwrap();
            while !END.load(Ordering::Relaxed) {
                // SAFETY: counts a register of its own down.
                unsafe {
                    std::arch::asm!(
                        "2:", "dec {count}", "jnz 2b",
                        count = inout(reg) 100_000u64 => _,
                        in("r12") MARK ^ 1,
                    );
                }
            }
        });
        let mut running = Running::start(receive.recv().unwrap() as u32).unwrap();
        let mut sample = Sample::default();
        while !sample.words.contains(&(MARK ^ 1)) {
            std::thread::yield_now();
            running.drain(&mut sample);
        }
        assert!(!sample.stack_pointers.is_empty());
        END.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }
}
