package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// NATS is the part of the configuration that both programs share.
type NATS struct {
	URL               string `envconfig:"NATS_URL" desc:"nats://user:pass@host:4222[,…]; the edge runs a server in-process when it is unset, the consumers then use 127.0.0.1:4222"`
	Creds             string `envconfig:"NATS_CREDS" desc:"credentials file, optional"`
	EdgePassword      Secret `envconfig:"NATS_EDGE_PASSWORD" desc:"password of the user edge; unset, on loopback: its name"`
	ConsumersPassword Secret `envconfig:"NATS_CONSUMERS_PASSWORD" desc:"password of the user consumers; unset, on loopback: its name"`
	OperatorPassword  Secret `envconfig:"NATS_OPERATOR_PASSWORD" desc:"password of the user operator; unset, on loopback: its name"`
	Replicas          int    `envconfig:"STREAM_REPLICAS" default:"1" desc:"copies of each stream: 1, or 3 on a cluster"`
}

// Validate names the first variable that can't be right.
func (n NATS) Validate() error {
	if n.Replicas != 1 && n.Replicas != 3 {
		return errors.New("STREAM_REPLICAS: must be 1 or 3")
	}
	for _, u := range strings.Split(n.URL, ",") {
		parsed, err := url.Parse(strings.TrimSpace(u))
		if err != nil || n.URL != "" && (parsed.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, parsed.Scheme)) {
			return errors.New("NATS_URL: not a URL such as nats://user:pass@host:4222")
		}
		if port := parsed.Port(); port != "" {
			if _, err := strconv.ParseUint(port, 10, 16); err != nil {
				return errors.New("NATS_URL: a port is not one")
			}
		}
	}
	if n.Creds == "" {
		return nil
	}
	text, err := os.ReadFile(n.Creds)
	if err != nil {
		return fmt.Errorf("NATS_CREDS: %w", errors.Unwrap(err))
	}
	if _, err := nkeys.ParseDecoratedUserNKey(text); err != nil {
		return errors.New("NATS_CREDS: the file holds no user's key, as nsc writes it")
	}
	return nil
}

// Auth gives the options that log a user in where the URL names none: with its
// password, or on loopback, without one, with its name.
func (n NATS) Auth(user string, password Secret, urls string) []nats.Option {
	if n.Creds != "" {
		return nil
	}
	for _, u := range strings.Split(urls, ",") {
		parsed, err := url.Parse(strings.TrimSpace(u))
		if err != nil || parsed.User != nil {
			return nil // an unreadable URL is for nats.Connect to report
		}
		if password == "" {
			ip := net.ParseIP(parsed.Hostname())
			if parsed.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
				return nil
			}
		}
	}
	if password == "" {
		password = Secret(user)
	}
	return []nats.Option{nats.UserInfo(user, string(password))}
}
