/* SPDX-License-Identifier: GPL-2.0 */
/* The few kernel types that gadgets read, trimmed to the members they use. preserve_access_index makes
 * every access a CO-RE relocation, so offsets come from the running kernel's BTF, not from here. */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

/* Keeps a struct that only a ring holds in the object's BTF, where the build finds its layout. */
#define RECORD(name) struct name *record_##name

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct qstr {
	__u32 len;
	const unsigned char *name;
};

struct hlist_bl_node {
	struct hlist_bl_node **pprev;
};

struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
};

struct vfsmount {
	struct dentry *mnt_root;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file_system_type {
	const char *name;
};

struct super_block {
	__u32 s_dev;
	unsigned long s_flags, s_magic;
	struct file_system_type *s_type;
};

typedef struct {
	__u32 val; /* as the first user namespace has it */
} kuid_t;

typedef struct {
	__u32 val;
} kgid_t;

struct timespec64 {
	__s64 tv_sec;
	long tv_nsec;
};

struct inode {
	unsigned short i_mode;
	kuid_t i_uid;
	kgid_t i_gid;
	unsigned int i_flags, i_nlink;
	__u32 i_rdev;
	unsigned long i_ino;
	__s64 i_mtime_sec, i_ctime_sec;
	__u32 i_mtime_nsec, i_ctime_nsec;
	struct super_block *i_sb;
};

struct inode___before_6_11 {
	struct timespec64 __i_mtime, __i_ctime;
};

struct inode___before_6_6 {
	struct timespec64 i_mtime, i_ctime;
};

struct file {
	unsigned int f_flags;
	__s64 f_pos;
	struct path f_path;
	struct inode *f_inode;
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct fs_struct {
	struct path root, pwd;
};

typedef struct {
	__s64 counter;
} atomic_long_t;

struct percpu_counter {
	__s64 count;
};

struct mm_struct {
	unsigned long arg_start, arg_end, env_start, env_end;
	struct file *exe_file;
	struct percpu_counter rss_stat[4];
};

struct mm_rss_stat {
	atomic_long_t count[4];
};

struct mm_struct___before_6_2 {
	struct mm_rss_stat rss_stat;
};

struct thread_info {
	unsigned long flags;
	__u32 status; /* x86 only */
};

typedef struct {
	int counter;
} atomic_t;

struct task_io_accounting {
	__u64 rchar, wchar, read_bytes, write_bytes;
};

struct pid;

struct tty_driver {
	int major, minor_start;
};

struct tty_struct {
	int index;
	struct tty_driver *driver;
};

struct signal_struct {
	atomic_t live;
	struct pid *pids[4]; /* PIDTYPE_PID, PIDTYPE_TGID, PIDTYPE_PGID, PIDTYPE_SID */
	struct tty_struct *tty;
	int nr_threads, group_exit_code;
	unsigned int flags;
	unsigned long maxrss;
	struct task_io_accounting ioac;
	unsigned long long sum_sched_runtime;
	short oom_score_adj;
	struct mm_struct *oom_mm;
};

struct sched_entity {
	__u64 exec_start, sum_exec_runtime;
};

struct sched_info {
	unsigned long pcount;
	unsigned long long run_delay;
};

struct cgroup;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
	unsigned int flags;
	__u64 serial_nr;
};

struct cfs_bandwidth {
	__u64 throttled_time;
};

struct task_group {
	struct cgroup_subsys_state css;
	struct cfs_bandwidth cfs_bandwidth;
};

enum psi_states {
	PSI_CPU_SOME = 4,
	PSI_CPU_FULL = 5,
};

struct psi_group {
	__u64 avg_next_update;
	unsigned long avg[18]; /* BTF has arrays of arrays as one: six states, over 10, 60 and 300 s */
};

struct css_set;
struct nsproxy;

struct ns_common {
	unsigned int inum;
};

struct user_namespace {
	int level;
	struct ns_common ns;
};

typedef struct {
	__u64 val; /* two halves before 6.3 */
} kernel_cap_t;

struct cred {
	kuid_t uid, euid, fsuid;
	kgid_t gid, egid, fsgid;
	kernel_cap_t cap_permitted, cap_effective;
};

typedef struct {
	unsigned long sig[1];
} sigset_t;

struct sigpending {
	sigset_t signal;
};

struct hlist_node {
	struct hlist_node *next, **pprev;
};

struct hlist_head {
	struct hlist_node *first;
};

struct xarray {
	void *xa_head;
};

struct xa_node {
	unsigned char shift;
	void *slots[64];
};

struct idr {
	struct xarray idr_rt;
};

struct pid_namespace {
	struct idr idr;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct hlist_head tasks[2]; /* PIDTYPE_PID, PIDTYPE_TGID */
	struct upid numbers[1];
};

struct task_struct {
	struct hlist_node pid_links[2];
	struct thread_info thread_info;
	unsigned int __state; /* since 2f064a59a11f (5.14) */
	unsigned int flags;
	struct sched_entity se;
	struct sched_info sched_info;
	struct task_group *sched_task_group;
	int exit_state, exit_code;
	int pid, tgid;
	unsigned long nvcsw;
	struct task_struct *group_leader;
	struct signal_struct *signal;
	const struct cred *real_cred;
	struct css_set *cgroups;
	const struct cred *cred;
	char comm[16];
	struct task_struct *real_parent;
	struct pid *thread_pid;
	__u64 start_boottime;
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct files_struct *files;
	struct nsproxy *nsproxy;
	struct task_io_accounting ioac;
	sigset_t blocked;
	struct sigpending pending;
	kuid_t loginuid;
	__u64 self_exec_id;
};

struct task_struct___before_5_14 {
	long state;
};

struct in6_addr {
	__u8 s6_addr[16];
};

typedef struct {
	long long counter;
} atomic64_t;

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	__be32 skc_daddr, skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	unsigned char skc_reuse : 4, skc_reuseport : 1, skc_ipv6only : 1;
	struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
	unsigned long skc_flags;
	possible_net_t skc_net;
	atomic64_t skc_cookie;
};

struct sock_cgroup_data {
	struct cgroup *cgroup; /* since 8520e224f547 (Linux 5.15) */
};

struct socket;

typedef struct {
	int owned;
} socket_lock_t;

typedef struct {
	atomic_t refs;
} refcount_t;

struct sk_buff_head {
	__u32 qlen;
};

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	struct sk_buff_head sk_receive_queue;
	struct {
		atomic_t rmem_alloc;
	} sk_backlog;
	refcount_t sk_wmem_alloc;
	__u32 sk_ack_backlog;
	__u16 sk_type;
	struct socket *sk_socket;
	struct pid *sk_peer_pid;
	int sk_err, sk_err_soft;
	__u16 sk_protocol;
	__u32 sk_max_ack_backlog;
	struct sock_cgroup_data sk_cgrp_data;
};

struct sockaddr_un {
	char sun_path[108];
};

struct unix_address {
	int len;
	struct sockaddr_un name[];
};

struct unix_sock {
	struct unix_address *addr;
	struct sock *peer;
};

struct udp_sock {
	int forward_deficit;
};

struct inet_sock {
	struct sock sk;
	__be16 inet_sport;
};

struct inet_bind_bucket {
	signed char fastreuse; /* below 0: the kernel chose the port for a connect */
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	struct inet_bind_bucket *icsk_bind_hash;
	__u8 icsk_ca_state : 5;
	__u8 icsk_retransmits, icsk_pending;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u64 bytes_sent, bytes_retrans, bytes_received;
	__u32 segs_out, write_seq, snd_una, rcv_nxt, copied_seq, srtt_us, total_retrans;
};

struct request_sock {
	struct sock_common __req_common;
};

struct sk_buff {
	struct sock *sk;
	char cb[48];
	__be16 protocol;
	__u16 network_header;
	unsigned int tail;
	unsigned char *head;
};

struct tcp_skb_cb {
	__u32 seq, end_seq;
	__u16 tcp_flags;
};

enum skb_drop_reason {
	SKB_DROP_REASON_NOT_SPECIFIED = 2, /* the kernel's BTF has the others, and its own values */
	SKB_DROP_REASON_NO_SOCKET,
	SKB_DROP_REASON_NETFILTER_DROP,
	SKB_DROP_REASON_NEIGH_FAILED,
};

struct trace_event_raw_kfree_skb {
	enum skb_drop_reason reason;
	void *rx_sk;
};

struct trace_event_raw_tcp_retransmit_skb {
	int err;
};

struct mptcp_sock {
	struct sock *first; /* the TCP socket of the first path */
};

struct socket {
	struct file *file;
	struct sock *sk;
};

struct bpf_iter__task_file {
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

struct bpf_map {
	__u32 max_entries;
};

struct kernfs_node {
	const char *name;
	__u64 id;
};

struct cgroup_root {
	int hierarchy_id;
};

struct cgroup;

struct gendisk {
	char disk_name[32];
};

struct block_device {
	__u64 bd_start_sect;
	struct gendisk *bd_disk;
};

struct blkcg {
	struct cgroup_subsys_state css;
};

struct blkcg_gq {
	struct blkcg *blkcg;
};

struct bvec_iter {
	unsigned int bi_size;
};

struct bio {
	struct bio *bi_next;
	struct block_device *bi_bdev;
	unsigned int bi_opf;
	__u8 bi_status;
	struct bvec_iter bi_iter;
	struct blkcg_gq *bi_blkg;
};

struct request_queue;

struct request {
	struct bio *bio;
};

struct bio___before_5_12 {
	struct gendisk *bi_disk;
};

struct cgroup {
	struct cgroup_subsys_state self;
	int level;
	struct kernfs_node *kn;
	struct cgroup_root *root;
	struct psi_group *psi;
	struct cgroup *ancestors[];
};

struct cgroup___before_6_1 {
	__u64 ancestor_ids[1];
	struct psi_group psi;
};

enum cgroup_subsys_id {
	memory_cgrp_id = 4, /* the kernel's BTF has its own value */
};

struct css_set {
	struct cgroup_subsys_state *subsys[16];
	struct cgroup *dfl_cgrp;
};

struct page_counter {
	atomic_long_t usage;
	unsigned long max;
};

struct mem_cgroup {
	struct cgroup_subsys_state css;
	struct page_counter memory;
};

struct mnt_namespace;

struct nsproxy {
	struct mnt_namespace *mnt_ns;
};

struct kernel_siginfo {
	int si_code;
};

struct seq_file {
	size_t size, count;
};

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	void *value; /* NULL after the last element */
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct linux_binprm {
	const char *filename, *fdpath;
};

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long bp, bx, r10, r9, r8, ax, cx, dx, si, di, orig_ax;
};
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs {
	__u64 regs[31];
	__u64 orig_x0;
	__s32 syscallno;
};
#endif

#pragma clang attribute pop

/* The value, or max if that is less. The verifier can follow it, as clang may not fold the comparison into another. */
static __always_inline __u64 at_most(__u64 value, __u64 max)
{
	asm volatile("" : "+r"(value));
	if (value > max)
		value = max;
	asm volatile("" : "+r"(value));
	return value;
}
