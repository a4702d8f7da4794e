//go:build linux || darwin

package inproc

import "syscall"

// diskSpace is how many bytes of the disk of a directory are free for us, and how many
// there are.
func diskSpace(dir string) (free, total uint64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}
