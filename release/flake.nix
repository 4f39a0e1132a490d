# The package for Nix, built from the source: nix build ./release
#
# The developers of System Agent have no machine with Nix, so this file was never evaluated.
{
  description = "Streams complete snapshots of a Linux host and its Docker containers to authenticated TCP clients";

  inputs.nixpkgs.url = "nixpkgs/nixos-unstable";

  outputs = { nixpkgs, ... }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = build: nixpkgs.lib.genAttrs systems (system: build nixpkgs.legacyPackages.${system});
      version = (nixpkgs.lib.importTOML ../Cargo.toml).package.version;
    in
    {
      packages = each (pkgs: rec {
        default = system-agent;
        system-agent = pkgs.rustPlatform.buildRustPackage {
          pname = "system-agent";
          inherit version;
          src = ../.;
          cargoLock.lockFile = ../Cargo.lock;
          # The tests start daemons and need root.
          doCheck = false;
          nativeBuildInputs = [ pkgs.installShellFiles ];
          postInstall = ''
            mkdir pages
            cargo run --release --offline --example pages -- pages
            installManPage pages/*.1
            installShellCompletion pages/system-agent.bash pages/system-agent.fish pages/_system-agent
            for unit in system-agent system-agent-web; do
              substitute config/$unit.service $out/lib/systemd/system/$unit.service \
                --replace-fail /usr/local/bin/ $out/bin/
            done
            install -D -m 0755 config/setup.sh $out/share/system-agent/setup.sh
            install -m 0644 config/agent.env config/web.env $out/share/system-agent/
          '';
          preInstall = ''
            mkdir -p $out/lib/systemd/system
          '';
          meta = {
            description = "Streams complete snapshots of a Linux host and its Docker containers to authenticated TCP clients";
            license = with pkgs.lib.licenses; [ mit asl20 ];
            mainProgram = "system-agent";
            platforms = systems;
          };
        };
      });
    };
}
