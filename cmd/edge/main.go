// The edge receives the webhooks of Stripe, Meta and Twilio, verifies them and stores
// them in JetStream; see internal/edge. Without NATS_URL it also runs the NATS server.
package main

import (
	"os"

	"leadpipe/internal/daemon"
	"leadpipe/internal/daemon/edged"
)

func main() {
	os.Exit(daemon.Main("edge: receives webhooks, verifies them, stores them in JetStream, answers", os.Args[1:], edged.Run))
}
