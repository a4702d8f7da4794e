// Package serverconf makes configurations of NATS servers out of the project's nats.conf,
// for runs that start servers as processes of their own beside whatever listens already.
package serverconf

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"leadpipe/internal/freeport"
)

// A Node is one NATS server.
type Node struct {
	Name    string // "server-1"
	Conf    string // its configuration's file
	Port    int    // for clients, on loopback like the others
	Monitor int    // for its monitoring pages
	peer    int    // for the other servers
}

// URL is where a user of nats.conf reaches some servers. Passwords are the users' names,
// as in development.
func URL(nodes []Node, user string) string {
	var urls []string
	for _, n := range nodes {
		urls = append(urls, fmt.Sprintf("nats://%s:%s@127.0.0.1:%d", user, user, n.Port))
	}
	return strings.Join(urls, ",")
}

// Passwords are the variables that nats.conf asks for, with the users' names for values.
var Passwords = []string{"NATS_EDGE_PASSWORD=edge", "NATS_CONSUMERS_PASSWORD=consumers", "NATS_OPERATOR_PASSWORD=operator"}

// Write makes the configurations of some servers out of the project's nats.conf: each
// gets a name, ports and a store of its own, and where there are several, its peers.
// Nothing else differs. An error says what it has not found in the file.
func Write(file, dir string, count int) ([]Node, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading nats.conf: %w", err)
	}
	nodes := make([]Node, count)
	var routes []string
	for i := range nodes {
		n := &nodes[i]
		n.Name = fmt.Sprintf("server-%d", i+1)
		for _, port := range []*int{&n.Port, &n.Monitor, &n.peer} {
			if *port, err = freeport.Port(); err != nil {
				return nil, err
			}
		}
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", n.peer))
	}
	for i := range nodes {
		n := &nodes[i]
		conf := string(text)
		for _, change := range [][2]string{
			{"server_name: leadpipe", "server_name: " + n.Name},
			{"port: 4222", fmt.Sprint("port: ", n.Port)},
			{`http: "127.0.0.1:8222"`, fmt.Sprintf(`http: "127.0.0.1:%d"`, n.Monitor)},
			{`store_dir: "./data"`, fmt.Sprintf(`store_dir: %q`, filepath.Join(dir, n.Name))},
		} {
			if strings.Count(conf, change[0]) != 1 {
				return nil, fmt.Errorf("%s does not say %q once", file, change[0])
			}
			conf = strings.Replace(conf, change[0], change[1], 1)
		}
		if count > 1 {
			conf += fmt.Sprintf("\ncluster {\n  name: leadpipe\n  listen: \"127.0.0.1:%d\"\n  routes: [%s]\n}\n", n.peer, strings.Join(routes, ", "))
		}
		n.Conf = filepath.Join(dir, n.Name+".conf")
		if err := os.WriteFile(n.Conf, []byte(conf), 0o600); err != nil {
			return nil, fmt.Errorf("writing a server's configuration: %w", err)
		}
	}
	return nodes, nil
}
