//! Names of the kernel's helpers (include/uapi/linux/bpf.h), so that a call of one that upatch doesn't have is refused by
//! name.

/// The helper's name without the `bpf_` prefix.
const NAMES: &[(u32, &str)] = &[
    (1, "map_lookup_elem"),
    (2, "map_update_elem"),
    (3, "map_delete_elem"),
    (4, "probe_read"),
    (5, "ktime_get_ns"),
    (6, "trace_printk"),
    (7, "get_prandom_u32"),
    (8, "get_smp_processor_id"),
    (12, "tail_call"),
    (14, "get_current_pid_tgid"),
    (15, "get_current_uid_gid"),
    (16, "get_current_comm"),
    (22, "perf_event_read"),
    (25, "perf_event_output"),
    (27, "get_stackid"),
    (28, "csum_diff"),
    (35, "get_current_task"),
    (36, "probe_write_user"),
    (37, "current_task_under_cgroup"),
    (42, "get_numa_node_id"),
    (45, "probe_read_str"),
    (46, "get_socket_cookie"),
    (55, "perf_event_read_value"),
    (56, "perf_prog_read_value"),
    (58, "override_return"),
    (67, "get_stack"),
    (80, "get_current_cgroup_id"),
    (87, "map_push_elem"),
    (88, "map_pop_elem"),
    (89, "map_peek_elem"),
    (93, "spin_lock"),
    (94, "spin_unlock"),
    (105, "strtol"),
    (106, "strtoul"),
    (109, "send_signal"),
    (112, "probe_read_user"),
    (113, "probe_read_kernel"),
    (114, "probe_read_user_str"),
    (115, "probe_read_kernel_str"),
    (117, "send_signal_thread"),
    (118, "jiffies64"),
    (120, "get_ns_current_pid_tgid"),
    (125, "ktime_get_boot_ns"),
    (126, "seq_printf"),
    (127, "seq_write"),
    (130, "ringbuf_output"),
    (131, "ringbuf_reserve"),
    (132, "ringbuf_submit"),
    (133, "ringbuf_discard"),
    (134, "ringbuf_query"),
    (141, "get_task_stack"),
    (148, "copy_from_user"),
    (149, "snprintf_btf"),
    (156, "task_storage_get"),
    (157, "task_storage_delete"),
    (158, "get_current_task_btf"),
    (160, "ktime_get_coarse_ns"),
    (164, "for_each_map_elem"),
    (165, "snprintf"),
    (169, "timer_init"),
    (170, "timer_set_callback"),
    (171, "timer_start"),
    (172, "timer_cancel"),
    (173, "get_func_ip"),
    (174, "get_attach_cookie"),
    (175, "task_pt_regs"),
    (176, "get_branch_snapshot"),
    (177, "trace_vprintk"),
    (180, "find_vma"),
    (181, "loop"),
    (182, "strncmp"),
    (183, "get_func_arg"),
    (184, "get_func_ret"),
    (185, "get_func_arg_cnt"),
    (191, "copy_from_user_task"),
    (194, "kptr_xchg"),
    (195, "map_lookup_percpu_elem"),
    (197, "dynptr_from_mem"),
    (198, "ringbuf_reserve_dynptr"),
    (201, "dynptr_read"),
    (202, "dynptr_write"),
    (203, "dynptr_data"),
    (208, "ktime_get_tai_ns"),
    (209, "user_ringbuf_drain"),
];

/// `bpf_map_lookup_elem`, if the kernel has a helper with this id that a program might call.
pub(crate) fn kernel_name(id: u32) -> Option<String> {
    NAMES
        .iter()
        .find(|(known, _)| *known == id)
        .map(|(_, name)| format!("bpf_{name}"))
}

/// What to use instead.
pub(crate) fn instead(id: u32) -> &'static str {
    match id {
        1..=3 | 87..=89 | 164 | 195 => {
            "there are no maps: use an arena variable, `type __arena name;`"
        }
        6 | 177 => {
            "this bpf_printk() writes to the kernel's trace pipe: include upatch.h alone, or call upatch_printk(), which records an event"
        }
        25 | 130..=134 | 198 | 209 => "events go to the ring in the arena: call upatch_event()",
        4 | 113 | 148 | 191 => "the program's memory is read by bpf_probe_read_user()",
        45 | 115 => "strings of the program are read by bpf_probe_read_user_str()",
        58 => "a patch refuses a call by writing ctx->ax and returning UPATCH_RETURN",
        93 | 94 => "use atomics on arena variables",
        118 | 125 | 160 | 208 => "the time is bpf_ktime_get_ns()",
        _ => "upatch.h lists the helpers there are",
    }
}
