//! Programs under `BPF_PROG_TEST_RUN`.

use std::{
    process::Command,
    sync::{Mutex, PoisonError},
};

use aya::{
    programs::{TestRun, TestRunOptions, TestRunResult, Xdp, XdpMode},
    util::KernelVersion,
};
use xtask::{lab::Namespace, root, test::libtest::SKIPPED};

use crate::{packet::Frame, plane::Action};

/// True where the program in `object` can be loaded; otherwise the test that asks is skipped.
pub(crate) fn can_load(object: &[u8]) -> bool {
    if !root::is_root() {
        println!("{SKIPPED}loading the program takes root");
        return false;
    }
    if object.is_empty() {
        println!("{SKIPPED}built without the XDP program; `cargo xtask build` builds it");
        return false;
    }
    true
}

/// Attaches the program to an interface that is down, where that makes its runs quicker.
///
/// Before Linux 5.18 the kernel patches its code before and after each run of a program that is
/// attached nowhere, which takes a thousand times as long as the run.
pub(crate) fn keep_dispatched(program: &mut Xdp) {
    let since = KernelVersion::new(5, 18, 0);
    if KernelVersion::current().is_ok_and(|version| version >= since) {
        return;
    }
    add_veth("up0", "up1");
    let attached = program.attach("up0", XdpMode::Driver);
    attached.expect("the program attached to a veth");
}

/// Loaded programs that no test is using, each with what it was loaded with and in a namespace of its own:
/// loading takes far longer than most tests.
pub(crate) struct Pool<K, T>(Mutex<Vec<(K, Namespace, T)>>);

impl<K: PartialEq + Sync, T: Send> Pool<K, T> {
    /// Without any.
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Runs `test` on a program that was loaded with `key`, or else on one that `load` makes. One whose
    /// test fails is not used again.
    pub(crate) fn with(
        &self,
        key: K,
        load: impl FnOnce(&K) -> T + Send,
        test: impl FnOnce(&mut T) + Send,
    ) {
        let pool = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pooled = {
            let mut pool = pool();
            let at = pool.iter().position(|(other, ..)| *other == key);
            at.map(|at| pool.swap_remove(at))
        };
        let (key, namespace, mut program) = pooled.unwrap_or_else(|| {
            let namespace = Namespace::new("prog-run").expect("a namespace");
            let program = namespace.run(|| load(&key));
            (key, namespace, program)
        });
        namespace.run(|| test(&mut program));
        pool().push((key, namespace, program));
    }
}

/// Has the program process a frame; returns its action and the frame as it left it.
pub(crate) fn run(program: &mut Xdp, frame: &Frame) -> (Action, Frame) {
    let Output { value, frame, .. } = run_with_context(program, frame, None);
    let action = match value {
        1 => Action::Drop,
        2 => Action::Pass,
        3 => Action::Tx,
        4 => Action::Redirect,
        _ => Action::Aborted,
    };
    (action, frame)
}

/// What a program left behind.
pub(crate) struct Output {
    /// What it returned.
    pub(crate) value: u32,
    /// The frame.
    pub(crate) frame: Frame,
    /// Its context, where it was given one.
    pub(crate) context: Vec<u8>,
}

/// Has the program process a frame, with the beginning of a context.
pub(crate) fn run_with_context<P>(program: &P, frame: &Frame, context: Option<&[u8]>) -> Output
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>,
{
    let mut output = vec![0; frame.bytes().len() + 256];
    let mut context_out = vec![0; context.map_or(0, |_| 1024)];
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame.bytes()),
        data_out: Some(&mut output),
        ctx_in: context,
        ctx_out: context.map(|_| context_out.as_mut_slice()),
        ..TestRunOptions::default()
    });
    let result = result.expect("the kernel runs the program");
    let length = |bytes| usize::try_from(bytes).expect("a length fits usize");
    output.truncate(length(result.data_size_out));
    context_out.truncate(length(result.ctx_size_out));
    Output {
        value: result.return_value,
        frame: Frame::new(output),
        context: context_out,
    }
}

/// Makes a pair of interfaces in the thread's namespace.
pub(crate) fn add_veth(name: &str, peer: &str) {
    let added = Command::new("ip")
        .args(["link", "add", name, "type", "veth", "peer", "name", peer])
        .status();
    assert!(added.expect("`ip` runs").success(), "`ip link add` fails");
}
