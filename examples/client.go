// Prints one line for each snapshot of an agent. Needs Go 1.19 or newer, and only its standard library.
//
//	API_KEY=… go run examples/client.go [--tls] [HOST:PORT]
//
// The default is 127.0.0.1:9000. Environment variables:
//
//	API_KEY or API_KEY_FILE         the key, or a file that contains only the key
//	AGENT_CA                        use TLS, and trust the authorities in this PEM file
//	                                (--tls without AGENT_CA: trust the authorities of the system)
//	AGENT_NAME                      the name that the agent's certificate must contain; default: HOST
//	AGENT_CERT, AGENT_KEY           PEM files with this client's certificate and key, for mutual TLS
//	AGENT_TIMEOUT                   reconnect after this many seconds without a snapshot; default: 90
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// This client needs only two sections of a snapshot, so it does not request the other sections.
var options = map[string]any{"sections": []string{"system", "containers"}}
const maxWait = 30 * time.Second

// If the agent's host loses power, nothing closes the connection, so the client needs a timeout. 90 s is many times the
// agent's default PUBLISH_INTERVAL of 5 s. If the agent has a much longer interval, set AGENT_TIMEOUT.
var silence = 90 * time.Second

type snapshot struct {
	Error  string
	Agent  struct{ Cursor string }
	Host   struct{ Hostname string }
	System struct {
		CPUPercent [1]float64 `json:"cpu_percent"`
	}
	Containers []struct {
		Name       string
		CPUPercent float64 `json:"cpu_percent"`
	}
}

func (s *snapshot) String() string {
	text := fmt.Sprintf("%s  cpu %.1f %%", s.Host.Hostname, s.System.CPUPercent[0])
	all := s.Containers
	sort.Slice(all, func(a, b int) bool { return all[a].CPUPercent > all[b].CPUPercent })
	for i := 0; i < len(all) && i < 3; i++ {
		separator := ", "
		if i == 0 {
			separator = "  busiest: "
		}
		text += fmt.Sprintf("%s%s %.1f %%", separator, strings.TrimPrefix(all[i].Name, "/"), all[i].CPUPercent)
	}
	return text
}

func fail(status int, why any) {
	fmt.Fprintln(os.Stderr, "client.go:", why)
	os.Exit(status)
}

func readKey() (string, error) {
	if key := os.Getenv("API_KEY"); key != "" {
		return key, nil
	}
	path := os.Getenv("API_KEY_FILE")
	if path == "" {
		return "", errors.New("set API_KEY or API_KEY_FILE")
	}
	text, err := os.ReadFile(path)
	return strings.TrimSpace(string(text)), err
}

func tlsConfig(host string) (*tls.Config, error) {
	config := &tls.Config{ServerName: host}
	if name := os.Getenv("AGENT_NAME"); name != "" {
		config.ServerName = name
	}
	if path := os.Getenv("AGENT_CA"); path != "" {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s contains no certificate", path)
		}
	}
	if path := os.Getenv("AGENT_CERT"); path != "" {
		pair, err := tls.LoadX509KeyPair(path, os.Getenv("AGENT_KEY"))
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// stream prints a line for each snapshot of one connection. It returns the reason why the connection ended.
func stream(address, key string, config *tls.Config, seen func()) error {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	var connection net.Conn
	var err error
	if config == nil {
		connection, err = dialer.Dial("tcp", address)
	} else {
		connection, err = tls.DialWithDialer(dialer, "tcp", address, config)
	}
	if err != nil {
		return err
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(silence))
	asked, err := json.Marshal(options)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(connection, "%s %s\n", key, asked); err != nil {
		return err
	}
	// A Scanner would limit the length of a line.
	reader := bufio.NewReader(connection)
	for {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("no snapshot for %v", silence)
		} else if errors.Is(err, io.EOF) {
			return errors.New("the agent closed the connection")
		} else if err != nil {
			return err
		}
		if string(line) == "Unauthorized\n" {
			fail(2, "the agent refused the API key")
		}
		var s snapshot
		if err := json.Unmarshal(line, &s); err != nil {
			return err
		}
		if s.Error != "" {
			fail(1, s.Error)
		}
		if _, err := fmt.Println(&s); errors.Is(err, syscall.EPIPE) {
			os.Exit(0) // The program that reads this output has ended.
		} else if err != nil {
			fail(1, err)
		}
		// With "logs": "new" or the section events, the next connection continues after this snapshot.
		if s.Agent.Cursor != "" {
			options["resume"] = s.Agent.Cursor
		}
		seen()
		connection.SetDeadline(time.Now().Add(silence))
	}
}

func main() {
	// With this, a write to a closed pipe returns an error and does not kill the process.
	signal.Ignore(syscall.SIGPIPE)
	endings := make(chan os.Signal, 1)
	signal.Notify(endings, os.Interrupt, syscall.SIGTERM)
	go func() { <-endings; os.Exit(0) }()

	address, useTLS := "127.0.0.1:9000", os.Getenv("AGENT_CA") != ""
	for _, argument := range os.Args[1:] {
		if argument == "--tls" {
			useTLS = true
		} else {
			address = argument
		}
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		fail(1, "usage: client.go [--tls] [HOST:PORT]")
	}
	if seconds, err := strconv.ParseFloat(os.Getenv("AGENT_TIMEOUT"), 64); err == nil {
		silence = time.Duration(seconds * float64(time.Second))
	}
	key, err := readKey()
	if err != nil {
		fail(1, err)
	}
	var config *tls.Config
	if useTLS {
		if config, err = tlsConfig(host); err != nil {
			fail(1, err)
		}
	}

	random := rand.New(rand.NewSource(time.Now().UnixNano()))
	for wait := time.Second; ; {
		err := stream(address, key, config, func() { wait = time.Second })
		// The pause is random, so that many clients do not connect at the same time after the agent restarts.
		pause := time.Duration(float64(wait) * (0.75 + random.Float64()/4))
		fmt.Fprintf(os.Stderr, "client.go: %v; retry in %.1f s\n", err, pause.Seconds())
		time.Sleep(pause)
		if wait *= 2; wait > maxWait {
			wait = maxWait
		}
	}
}
