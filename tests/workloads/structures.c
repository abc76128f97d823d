/* structures: calls whose arguments point to structures, for comparing with strace. It runs in an empty directory. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <sys/wait.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/msg.h>
#include <sys/shm.h>
#include <sys/fanotify.h>
#include <poll.h>
#include <termios.h>
#include <signal.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/landlock.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/bpf.h>
#include <mqueue.h>
static char buffer[100];
int main(void){
 struct flock fl={.l_type=F_WRLCK,.l_whence=SEEK_SET,.l_start=1,.l_len=5};
 struct stat st; struct statfs sf; struct statx sx; siginfo_t si; int pair[2], n; struct timeval tv={0,5}; fd_set r,w;
 int fd=open("file",O_RDWR|O_CREAT,0640);
 fcntl(fd,F_SETLK,&fl); fcntl(fd,F_GETLK,&fl); fcntl(-1,F_SETLK,&fl);
 write(fd,"hello",5);
 fstat(fd,&st); stat("file",&st); lstat("missing",&st); stat("/dev/null",&st); statx(AT_FDCWD,"file",0,STATX_BASIC_STATS,&sx);
 statfs(".",&sf); fstatfs(fd,&sf);
 pipe2(pair,0);
 FD_ZERO(&r); FD_SET(pair[0],&r); select(pair[0]+1,&r,NULL,NULL,&tv);
 write(pair[1],"x",1); FD_ZERO(&r); FD_ZERO(&w); FD_SET(pair[0],&r);FD_SET(pair[1],&w); tv.tv_sec=3; tv.tv_usec=0; select(pair[1]+1,&r,&w,NULL,&tv);
 FD_ZERO(&r); FD_SET(pair[0],&r); pselect(pair[0]+1,&r,NULL,NULL,&(struct timespec){5,0},NULL);
 ioctl(pair[0],FIONREAD,&n); n=1; ioctl(pair[0],FIONBIO,&n); ioctl(0,TIOCGWINSZ,buffer); ioctl(0,TCGETS,buffer); ioctl(0,TIOCSPGRP,&n);
 struct sockaddr_in six={.sin_family=AF_INET,.sin_port=htons(53)}; inet_pton(AF_INET,"127.0.0.1",&six.sin_addr);
 int s=socket(AF_INET,SOCK_DGRAM,0);
 struct iovec v[3]={{"one",3},{"two",3},{"three",5}};
 struct msghdr m={.msg_name=&six,.msg_namelen=sizeof six,.msg_iov=v,.msg_iovlen=3};
 sendmsg(s,&m,0);
 struct mmsghdr mm[2]={{.msg_hdr={.msg_iov=v,.msg_iovlen=1}},{.msg_hdr={.msg_iov=v+1,.msg_iovlen=1}}};
 connect(s,(void*)&six,sizeof six); sendmmsg(s,mm,2,MSG_NOSIGNAL);
 socketpair(AF_UNIX,SOCK_STREAM,0,pair);
 char cb[CMSG_SPACE(8)]={}; m=(struct msghdr){.msg_iov=v,.msg_iovlen=2,.msg_control=cb,.msg_controllen=CMSG_SPACE(8)};
 struct cmsghdr *c=CMSG_FIRSTHDR(&m); c->cmsg_level=SOL_SOCKET;c->cmsg_type=SCM_RIGHTS;c->cmsg_len=CMSG_LEN(8); memcpy(CMSG_DATA(c),pair,8);
 sendmsg(pair[0],&m,0);
 struct iovec in[2]={{buffer,2},{buffer+2,50}}; m=(struct msghdr){.msg_iov=in,.msg_iovlen=2,.msg_control=cb,.msg_controllen=CMSG_SPACE(8)};
 recvmsg(pair[1],&m,0);
 writev(pair[0],v,3); readv(pair[1],in,2);
 if(!fork())_exit(7); waitid(P_ALL,0,&si,WEXITED);
 if(!fork()){raise(SIGKILL);} waitid(P_ALL,0,&si,WEXITED|WNOWAIT); waitid(P_ALL,0,&si,WEXITED); waitid(P_ALL,0,&si,WEXITED|WNOHANG);
 struct __user_cap_header_struct ch={_LINUX_CAPABILITY_VERSION_3,0}; struct __user_cap_data_struct cd[2]={};
 syscall(SYS_capget,&ch,cd);
 syscall(SYS_preadv,fd,in,2,-1L,0); syscall(SYS_pwritev2,fd,v,1,2L,0L,0);syscall(SYS_pwritev2,fd,v,1,-1L,-1L,0);
 syscall(SYS_close_range,400,~0U,0); syscall(SYS_fanotify_mark,-1,FAN_MARK_ADD,FAN_OPEN|FAN_CLOSE_WRITE,AT_FDCWD,"file");
 semctl(semget(IPC_PRIVATE,1,IPC_CREAT|0600),0,IPC_RMID); semget(5,1,0600); msgget(7,0644); shmget(9,4096,0600); 
 mq_open("/none",O_RDWR); mq_open("/none",O_RDWR|O_CREAT|O_EXCL,0600,0);mq_unlink("/none");
 posix_fadvise(fd,0,0,POSIX_FADV_SEQUENTIAL);
 syscall(SYS_fsopen,"none",FSOPEN_CLOEXEC); syscall(SYS_fsconfig,-1,FSCONFIG_SET_STRING,"a","b",0); syscall(SYS_fsmount,-1,FSMOUNT_CLOEXEC,MOUNT_ATTR_NOSUID);
 syscall(SYS_move_mount,-1,"",-1,"",MOVE_MOUNT_F_EMPTY_PATH); syscall(SYS_open_tree,AT_FDCWD,"none",OPEN_TREE_CLONE|AT_RECURSIVE);
 syscall(SYS_fspick,AT_FDCWD,"none",FSPICK_CLOEXEC);
 struct mount_attr ma={.attr_set=MOUNT_ATTR_RDONLY}; syscall(SYS_mount_setattr,-1,"x",AT_EMPTY_PATH,&ma,sizeof ma);
 syscall(SYS_landlock_create_ruleset,NULL,0,LANDLOCK_CREATE_RULESET_VERSION); struct landlock_ruleset_attr la={LANDLOCK_ACCESS_FS_EXECUTE|LANDLOCK_ACCESS_FS_READ_FILE};
 syscall(SYS_landlock_create_ruleset,&la,8,0); struct landlock_path_beneath_attr pb={LANDLOCK_ACCESS_FS_EXECUTE,-1}; syscall(SYS_landlock_add_rule,-1,LANDLOCK_RULE_PATH_BENEATH,&pb,0);
 syscall(SYS_landlock_restrict_self,-1,0);
 struct io_uring_params ip={.flags=IORING_SETUP_CLAMP}; syscall(SYS_io_uring_setup,0,&ip); syscall(SYS_io_uring_setup,4,&ip);
 syscall(SYS_keyctl,KEYCTL_GET_KEYRING_ID,KEY_SPEC_SESSION_KEYRING,0); syscall(SYS_add_key,"user","d","p",1,KEY_SPEC_PROCESS_KEYRING);
 union bpf_attr ba={.map_type=BPF_MAP_TYPE_ARRAY,.key_size=3,.value_size=4,.max_entries=1}; syscall(SYS_bpf,BPF_MAP_CREATE,&ba,sizeof ba); syscall(SYS_bpf,BPF_PROG_QUERY,&ba,2);
 struct sigaction sa={.sa_handler=SIG_DFL}; kill(getpid(),SIGCONT);
}
