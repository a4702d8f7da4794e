package bus

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
)

// Connect makes a connection that outlives every outage of the server: it is usable
// at once, and while no server answers, publishes fail. Credentials that the server
// refuses end it: lost is then called once, with a one-line reason. The name is that of
// the user in nats.conf: answers come to its own inbox, which is all that it may read.
func Connect(url, credsFile, name string, log *slog.Logger, lost func(error), opts ...nats.Option) (jetstream.JetStream, error) {
	opts = append([]nats.Option{
		nats.Name(name),
		nats.CustomInboxPrefix(InboxPrefix(name)),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		// A publish during an outage has to fail and be tried again, not to wait in memory.
		nats.ReconnectBufSize(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("NATS connection lost, trying again", "reason", err.Error())
			}
		}),
		nats.ReconnectErrHandler(unreachable(log)),
		nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("NATS connection restored", "server", nc.ConnectedServerName()) }),
		// A denied request looks like a timeout to the caller; this line says why.
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Error("NATS reported an error", "reason", err.Error())
		}),
		nats.ClosedHandler(func(nc *nats.Conn) {
			if err := nc.LastError(); err != nil && lost != nil {
				lost(fmt.Errorf("NATS connection closed: %w", err))
			}
		}),
	}, opts...)
	if credsFile != "" {
		opts = append(opts, nats.UserCredentials(credsFile))
	}
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		return nil, fmt.Errorf("connecting to NATS: %w", err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("setting up JetStream: %w", err)
	}
	return js, nil
}

// unreachable logs why no server is reached: each reason once until another comes. A
// certificate that is not trusted shows nowhere else.
func unreachable(log *slog.Logger) nats.ConnErrHandler {
	var mu sync.Mutex
	said := ""
	return func(_ *nats.Conn, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil && err.Error() != said {
			said = err.Error()
			log.Warn("NATS is not reached, trying on", "reason", said)
		}
	}
}

// InboxPrefix is where answers to a user of nats.conf go, so that no other user reads
// them. The operator, who may do everything, keeps the default of all clients.
func InboxPrefix(user string) string {
	if user == "operator" {
		return nats.InboxPrefix[:len(nats.InboxPrefix)-1] // without its last dot
	}
	return nats.InboxPrefix + user
}

// Ready says whether JetStream could store a webhook now: the WEBHOOKS stream has a
// leader that answers, and is not full.
func Ready(info *jetstream.StreamInfo) error {
	c := info.Config
	switch {
	case info.Cluster != nil && info.Cluster.Leader == "":
		return errors.New("the WEBHOOKS stream has no leader")
	case c.MaxMsgs > 0 && info.State.Msgs >= uint64(c.MaxMsgs):
		return errors.New("the WEBHOOKS stream is full (max_msgs)")
	case c.MaxBytes > 0 && info.State.Bytes >= uint64(c.MaxBytes):
		return errors.New("the WEBHOOKS stream is full (max_bytes)")
	}
	return nil
}

// Connected is the metric nats_connected: 1 while a program is connected to NATS.
func Connected(nc *nats.Conn) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "nats_connected", Help: "1 while the program is connected to NATS."}, func() float64 {
		if nc.Status() == nats.CONNECTED {
			return 1
		}
		return 0
	})
}
