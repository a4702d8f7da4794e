// The consumers keep the state and carry out what it asks for: all of them, or those
// named as arguments. Any number of processes may run side by side.
package main

import (
	"os"

	"leadpipe/internal/daemon"
	"leadpipe/internal/daemon/consumersd"
)

func main() {
	os.Exit(daemon.Main("consumers [billing] [leads] [optouts] [sms] [blacklist] [sheets]: the durable consumers; all without arguments",
		os.Args[1:], consumersd.Run))
}
