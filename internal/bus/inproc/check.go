package inproc

import (
	"fmt"
	"net"
)

// Check reads nats.conf as Start does, and starts nothing. It gives the address where
// clients on this machine would find the server, and whether a password is its user's
// name.
func Check(file string) (url string, guessable bool, err error) {
	opts, _, guessable, err := configuration(file)
	if err != nil {
		return "", false, err
	}
	if guessable && !loopback(opts.Host) {
		return "", true, ErrDevelopmentPasswords
	}
	host := opts.Host
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "nats://" + net.JoinHostPort(host, fmt.Sprint(opts.Port)), guessable, nil
}
